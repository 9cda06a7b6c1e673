"""What runs later, and where: callbacks, pools, contexts, managers that hand on a function; and look-alikes."""

from __future__ import annotations

from contract_shapes import shapes

BAD = shapes(
    "hold",
    "bad",
    """
--- a future waited for by concurrent.futures.wait
def load(self, pool):
    import concurrent.futures
    future = pool.submit(self._wait)
    with self._lock:
        concurrent.futures.wait([future])
--- a future waited for with a timeout
def load(self, pool):
    from concurrent.futures import wait
    future = pool.submit(self._wait)
    with self._lock:
        wait({future}, timeout=5)
--- a future among others waited for
def load(self, pool, other):
    from concurrent.futures import wait
    future = pool.submit(self._wait)
    with self._lock:
        wait((future, other))
--- a task waited for by asyncio.wait
async def load(self):
    task = asyncio.create_task(asyncio.to_thread(self._wait))
    with self._lock:
        await asyncio.wait([task])
--- run in a copy of the context
def load(self):
    import contextvars
    with self._lock:
        contextvars.copy_context().run(self._wait)
--- run in a context made before
def load(self):
    from contextvars import copy_context
    context = copy_context()
    with self._lock:
        context.run(partial(self._wait))
--- handed on by nullcontext
def load(self):
    with self._lock, nullcontext(self._wait) as wait:
        wait()
--- handed on by nullcontext to a stack
def load(self):
    with ExitStack() as stack, self._lock:
        wait = stack.enter_context(nullcontext(enter_result=self._wait))
        wait()
--- the lock handed on by nullcontext
def load(self):
    with nullcontext(self._lock) as lock, lock:
        self._wait()
--- a callback added to a future that may be done
def load(self, pool):
    future = pool.submit(print)
    with self._lock:
        future.add_done_callback(lambda _: self._wait())
--- a future that ends under the lock
def load(self, future):
    future.add_done_callback(self._wait)
    with self._lock:
        future.set_result(1)
--- a future that ends under the lock, further down
def start(self):
    self._future.add_done_callback(self._settled)
def _settled(self, future):
    self._wait()
def _end(self):
    self._future.set_exception(ValueError())
def load(self):
    with self._lock:
        self._end()
--- a future that is cancelled under the lock
def load(self, future):
    future.add_done_callback(lambda _: self._wait())
    with self._lock:
        future.cancel()
--- a pool that a loop runs it in, and that ends under the lock
async def load(self):
    loop = asyncio.get_running_loop()
    with self._lock, ThreadPoolExecutor() as pool:
        loop.run_in_executor(pool, self._wait)
--- a stack whose callbacks run before the lock is let go
def load(self):
    with ExitStack() as stack:
        stack.enter_context(self._lock)
        stack.callback(self._wait)
        stack.pop_all().close()
""",
)

GOOD = shapes(
    "hold",
    "good",
    """
--- waited for by concurrent.futures.wait before the lock
def load(self, pool):
    from concurrent.futures import wait
    future = pool.submit(self._wait)
    wait([future], timeout=5)
    with self._lock:
        self.ready = True
--- other futures waited for under the lock
def load(self, pool):
    from concurrent.futures import wait
    self._wait()
    future = pool.submit(print)
    with self._lock:
        wait([future])
--- a task waited for by asyncio.wait before the lock
async def load(self):
    task = asyncio.create_task(asyncio.to_thread(self._wait))
    await asyncio.wait([task])
    with self._lock:
        self.ready = True
--- run in a copy of the context before the lock
def load(self):
    import contextvars
    context = contextvars.copy_context()
    context.run(self._wait)
    with self._lock:
        context.run(print)
--- handed on by nullcontext and called later
def load(self):
    with self._lock, nullcontext(self._wait) as wait:
        self.ready = True
    wait()
--- the lock handed on by nullcontext and not taken
def load(self):
    with nullcontext(self._lock):
        self._wait()
    with self._lock:
        self.ready = True
--- a callback added before the lock
def load(self, pool):
    future = pool.submit(print)
    future.add_done_callback(lambda _: self._wait())
    with self._lock:
        self.ready = True
--- a callback that does no harm
def load(self, pool):
    self._wait()
    with self._lock:
        future = pool.submit(print)
        future.add_done_callback(self._settled)
        future.cancel()
def _settled(self, future):
    self.ready = True
--- a pool that a loop runs it in, and that ends after the lock
async def load(self):
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor() as pool:
        with self._lock:
            loop.run_in_executor(pool, self._wait)
--- a stack whose callbacks run after the lock was let go
def load(self):
    with ExitStack() as stack:
        stack.callback(self._wait)
        stack.enter_context(self._lock)
        stack.pop_all().close()
""",
)

BAD += shapes(
    "precede",
    "bad",
    """
--- waited for by concurrent.futures.wait for a while
def load(self, pool):
    from concurrent.futures import wait
    wait([pool.submit(self._wait)], timeout=1)
    subprocess.Popen("x")
--- waited for by concurrent.futures.wait, and it may have failed
def load(self, pool):
    from concurrent.futures import wait
    wait([pool.submit(self._wait)])
    subprocess.Popen("x")
--- a task of which asyncio.wait tells no error
async def load(self):
    await asyncio.wait([asyncio.create_task(asyncio.to_thread(self._wait))])
    subprocess.Popen("x")
--- a callback that is added is no wait
def load(self, pool):
    pool.submit(print).add_done_callback(lambda _: self._wait())
    subprocess.Popen("x")
""",
)

GOOD += shapes(
    "precede",
    "good",
    """
--- run in a copy of the context before the spawn
def load(self):
    import contextvars
    contextvars.copy_context().run(self._wait)
    subprocess.Popen("x")
--- handed on by nullcontext before the spawn
def load(self):
    with nullcontext(self._wait) as wait:
        wait()
    subprocess.Popen("x")
""",
)
