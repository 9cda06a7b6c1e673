/* libnvidia-ml.so: the name that slurmd and nvtop ask for. It holds nothing: the loader brings libnvidia-ml.so.1 along
 * (DT_NEEDED), and looks a symbol up in what a library needs as well. */
const char fake_gpu_forwards_to[] = "libnvidia-ml.so.1";
