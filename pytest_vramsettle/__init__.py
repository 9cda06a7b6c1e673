"""pytest-vramsettle: the settle wait and kill record for production, and a pytest plugin to test whoever waits.

Import what you need from its module, so that production code brings in nothing else:
`pytest_vramsettle.settle`, `.kills`, `.probes`, `.policies` (standard library only), `.clock`; and `fake_gpu`.
"""

__version__ = "0.1.0"
