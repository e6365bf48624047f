"""Cells that take all they can, break their own process, or attack the protocol, and how each ends."""

from __future__ import annotations

from tests.unit.tools.python.attempts import PRELUDE

_OWN_PIPES = "requests, replies = 3, 4\n"
"""The descriptors where a child keeps its pipes, which a cell can find out."""

_FRAME = "import json, os, struct\ndef frame(body): return struct.pack('>I', len(body)) + body\n" + _OWN_PIPES
_MACHINE_CODE = """
import mmap
prot = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
code = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=prot)
code.write({code!r})
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
"""

PAGE_TABLES = (
    PRELUDE
    + """
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
address = 0x100000000000
while True:
    address += 1 << 30
    if libc.mmap(address, 4096, 3, 0x32, -1, 0) == address:
        ctypes.memset(address, 1, 1)
"""
)

WITHOUT_MAIN_THREAD = "import ctypes, threading, time\n{rest}\nctypes.CDLL(None).syscall({exit}, 0)".format(
    rest="threading.Thread(target=time.sleep, args=(10**6,)).start()",
    exit="{'x86_64': 60, 'aarch64': 93}[__import__('os').uname().machine]",
)
"""The kernel then reports no memory of the process, though its other threads go on."""

LOST = {  # the process ends; the model reads why, and the next call has a new one
    "exit of the process": ("import os; os._exit(7)", "exit code 7"),
    "end of the main thread": (WITHOUT_MAIN_THREAD, "SIGKILL"),
    "abort": ("import os; os.abort()", "SIGABRT"),
    "null pointer": ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
    "SIGKILL for itself": ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
    "SIGSTOP for itself": ("import os; os.kill(os.getpid(), 19)", "longer than"),
    "stack of C": (
        "import sys; sys.setrecursionlimit(10**9)\n"
        "class A:\n    def __getattr__(self, name): return getattr(self, name)\nA().x",
        "SIGSEGV",
    ),
    "call of 32 bits": (PRELUDE + _MACHINE_CODE.format(code=b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"), "killed by"),
    "halt of the CPU": (PRELUDE + _MACHINE_CODE.format(code=b"\xf4"), "SIGSEGV"),
    "loop without an end for interrupts": (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        "longer than",
    ),
    "loop that catches interrupts": (
        "import time\nwhile True:\n    try: time.sleep(0.001)\n    except BaseException: pass",
        "longer than",
    ),
    "loop of C": ("import itertools; sum(itertools.repeat(0))", "longer than"),
    "threads without end": (
        "import threading, time; threading.stack_size(32768)\n"
        "while True: threading.Thread(target=time.sleep, args=(10**6,)).start()",
        "threads",
    ),
    "page tables": (PAGE_TABLES, "memory"),
    "all descriptors closed": ("import os; os.closerange(0, 100)", "exit code"),
    "replies closed": (_FRAME + "os.close(replies)\nwhile True: pass", "closed its connection"),
    "reply of another call": (_FRAME + "os.write(replies, frame(b'{\"run\": 10000}'))", "closed its connection"),
    "reply that is no object": (_FRAME + "os.write(replies, frame(b'[]'))", "closed its connection"),
    "reply that is no JSON": (_FRAME + "os.write(replies, frame(b'\\xff'))", "closed its connection"),
    "reply of 4 GiB": (_FRAME + "os.write(replies, b'\\xff' * 100)", "closed its connection"),
    "reply that is nested": (_FRAME + "os.write(replies, frame(b'[' * 1000))", "closed its connection"),
    "replies without end": (_FRAME + "while True: os.write(replies, frame(b'{}'))", "closed its connection"),
}

KEPT = {  # the call ends, and variables are kept
    "loop": ("while True: pass", "longer than"),
    "sleep": ("import time; time.sleep(10**6)", "longer than"),
    "power without end": ("10 ** 10 ** 9 % 7", "longer than"),
    "pattern that takes for ever": ("import re; re.match(r'(a+)+b', 'a' * 60)", "longer than"),
    "wait for input": ("input()", "EOFError"),
    "read of all input": ("import sys; len(sys.stdin.read())", "0"),
    "memory": ("x = bytearray(10**10)", "MemoryError"),
    "memory in steps": ("x = []\nwhile True: x.append(bytearray(10**7))", "MemoryError"),
    "memory of a list": ("x = [0]\nwhile True: x += x", "MemoryError"),
    "memory that is shared": ("import mmap\nx = mmap.mmap(-1, 10**10)", "Error"),
    "shared memory of which one page stays mapped": ("import mmap\nmmap.mmap(-1, 2**20)", "PermissionError"),
    "number without end": ("x = 1 << 10**11", "MemoryError"),
    "text of a long number": ("str(10**5000)", "ValueError"),
    "bomb of forks": ("import os\nfor _ in range(10**4):\n    try: os.fork()\n    except OSError: pass", "No output"),
    "output without end": ("while True: print('x' * 1000)", "wrote more than"),
    "output of one line": ("print('x' * 10**7)", "wrote more than"),
    "errors without end": ("import sys\nwhile True: sys.stderr.write('x' * 1000)", "wrote more than"),
    "output of bytes": ("import os\nwhile True: os.write(1, bytes(1000))", "wrote more than"),
    "output of a value": ("'x' * 10**7", "wrote more than"),
    "pipes without end": ("import os\nwhile True: os.pipe()", "Too many open files"),
    "recursion": ("f = lambda: f()\nf()", "RecursionError"),
    "nested brackets": ("(" * 10**5 + ")" * 10**5, "Error"),
    "nested lists": ("x = " + "[" * 10**4 + "]" * 10**4, "Error"),
    "nested data": ("import json; json.loads('[' * 10**6)", "RecursionError"),
    "end": ("raise SystemExit", "No output"),
    "end with a message": ("import sys; sys.exit('bye')", "No output"),
    "wrong syntax": ("x = = 1", "SyntaxError"),
    "NUL": ("x = '\0'", "Error"),
    "half of a character": ("x = '\ud800'", "Error"),
    "output that is no text": ("import os; os.write(1, bytes(range(256)))", "\ufffd"),
    "streams replaced": ("import sys; sys.stdout = sys.stderr = None", "No output"),
    "streams closed": ("import sys; sys.stdout.close()", "No output"),
    "error that cannot be shown": (
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E", "exception str() failed"
    ),
    "value that cannot be shown": ("class V:\n    def __repr__(self): raise ValueError('no')\nV()", "ValueError: no"),
    "thread that goes on": (
        "import threading\ndef spin():\n    while True: pass\nthreading.Thread(target=spin, daemon=True).start()",
        "No output",
    ),
    "timer": ("import signal; signal.setitimer(signal.ITIMER_REAL, 1000)", "(0.0, 0.0)"),
    "traces": ("import sys; sys.settrace(lambda *a: None)", "No output"),
}  # fmt: skip
