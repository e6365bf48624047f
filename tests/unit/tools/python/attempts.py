"""Attempts of code to get out of its confinement. Each is one or more statements that must raise an error.

The names of `outside.py` and a function `syscall(number, *arguments)` are there; machine code is no harder to reach
than ctypes. Numbers of system calls are those of x86_64.
"""

from __future__ import annotations

FILES = {
    "read a secret": "print(open(secret).read())",
    "read the users": "print(open('/etc/passwd').read())",
    "read the passwords": "print(open('/etc/shadow').read())",
    "read through a library": "print(open(os.path.dirname(os.__file__) + '/../' * 12 + 'etc/passwd').read())",
    "read from a folder entered": "os.chdir('/etc'); print(open('passwd').read())",
    "read from a descriptor of a folder": "print(os.open('passwd', os.O_RDONLY, dir_fd=os.open('/etc', os.O_RDONLY)))",
    "open a path only": "print(os.open(secret, os.O_PATH))",
    "open by openat2": "syscall(437, -100, secret.encode(), bytes(24), 24)",
    "open by creat": "syscall(85, secret.encode(), 0o600)",
    "open by handle": "syscall(303, -100, secret.encode(), bytes(136), bytes(8), 0)",
    "open a handle": "syscall(304, 3, bytes(136), 0)",
    "list the root": "print(os.listdir('/'))",
    "list the folder": "print(os.listdir(folder))",
    "list by glob": "import glob\nif not glob.glob('/etc/*'): raise OSError",
    "walk": "if not list(os.walk(folder)): raise OSError",
    "write a file": "open(folder + '/new', 'w')",
    "write a temporary file": "import tempfile; tempfile.TemporaryFile()",
    "write in memory's file system": "open('/dev/shm/new', 'w')",
    "append": "open(secret, 'a').write('x')",
    "truncate": "os.truncate(secret, 0)",
    "truncate as it is read": "os.open(secret, os.O_RDONLY | os.O_TRUNC)",
    "truncate a library": "os.open(os.__file__, os.O_RDONLY | os.O_TRUNC)",
    "unnamed file": "os.open('/tmp', os.O_TMPFILE | os.O_RDWR)",
    "change a library": "open(os.__file__, 'r+')",
    "add to a library": "open(os.path.dirname(os.__file__) + '/new_module.py', 'w')",
    "add to the compiled library": "open(os.path.dirname(os.__file__) + '/__pycache__/os.cpython-311.pyc', 'wb')",
    "compile a library": "import py_compile; py_compile.compile(os.__file__, doraise=True)",
    "delete": "os.unlink(secret)",
    "delete a folder": "import shutil; shutil.rmtree(folder)",
    "rename": "os.rename(secret, folder + '/new')",
    "exchange names": "syscall(316, -100, secret.encode(), -100, (folder + '/canary.py').encode(), 2)",
    "make a folder": "os.mkdir(folder + '/new')",
    "make a symbolic link": "os.symlink('/etc/passwd', folder + '/new')",
    "make a hard link": "os.link(secret, folder + '/new')",
    "make a pipe with a name": "os.mkfifo(folder + '/new')",
    "make a device": "os.mknod(folder + '/new', 0o20600, os.makedev(1, 1))",
    "follow a symbolic link of the kernel": "print(open('/proc/self/cwd/etc/passwd').read())",
    "follow the root of another process": "print(open(f'/proc/{parent}/root/etc/passwd').read())",
    "read a symbolic link": "print(os.readlink(f'/proc/{parent}/exe'))",
    "change rights": "os.chmod(secret, 0o777)",
    "change the owner": "os.chown(secret, 1, 1)",
    "change times": "os.utime(secret)",
    "set an attribute": "os.setxattr(secret, 'user.x', b'x')",
    "read an attribute": "print(os.getxattr(secret, 'user.x'))",
    "read the environment": "print(open('/proc/self/environ').read())",
    "read the service's environment": "print(open(f'/proc/{parent}/environ').read())",
    "read the service's memory": "print(open(f'/proc/{parent}/mem', 'rb'))",
    "read the service's descriptors": "print(os.listdir(f'/proc/{parent}/fd'))",
    "open a pipe of the service": "print(open(f'/proc/{parent}/fd/{pipe}', 'rb').read(1))",
    "read the memory map": "print(open('/proc/self/maps').read())",
    "write its own memory": "open('/proc/self/mem', 'r+b')",
    "open by /dev/fd": "print(open('/dev/fd/1', 'w'))",
    "list processes": "print(os.listdir('/proc'))",
    "command lines": "print(open('/proc/1/cmdline').read())",
    "kernel's log": "print(open('/dev/kmsg').read(1))",
    "physical memory": "print(open('/dev/mem', 'rb'))",
    "raw disk": "print(open('/dev/vda', 'rb'))",
    "terminal": "print(open('/dev/tty', 'w'))",
    "pseudo-terminal": "os.openpty()",
    "GPU": "print(open('/dev/nvidiactl', 'r+b'))",
    "control groups": "open('/sys/fs/cgroup/cgroup.procs', 'w')",
    "kernel's settings": "open('/proc/sys/kernel/core_pattern', 'w')",
    "out-of-memory rank": "open('/proc/self/oom_score_adj', 'w').write('-1000')",
    "change the root": "os.chroot(folder)",
    "mount": "syscall(165, b'none', folder.encode(), b'tmpfs', 0, None)",
    "mount, the new calls": "syscall(430, b'tmpfs', 0)",
    "copy a mount": "syscall(428, -100, b'/', 1)",
    "change the root's mount": "syscall(155, b'.', b'.')",
    "watch files": "syscall(294, 0)",
    "watch the machine's files": "syscall(300, 0, 0)",
    "database": "import sqlite3; sqlite3.connect(folder + '/new').execute('create table x (y)')",
    "load a library": "ctypes.CDLL(secret)",
    "import from the folder": "import sys; sys.path.insert(0, folder); import canary",
    "file in memory": "os.memfd_create('x')",
    "secret memory": "syscall(447, 0)",
    "lock a library": "import fcntl; fcntl.flock(open(os.__file__), fcntl.LOCK_EX)",
    "lease on a library": "import fcntl; fcntl.fcntl(open(os.__file__), 1024, 0)",
    "limit of its files": "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))",
}

NETWORK = {
    "TCP": "import socket; socket.create_connection(('127.0.0.1', port))",
    "TCP over IPv6": "import socket; socket.socket(socket.AF_INET6)",
    "UDP": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', port))",
    "server": "import socket; socket.create_server(('127.0.0.1', 0))",
    "HTTP": "import urllib.request; print(urllib.request.urlopen(f'http://127.0.0.1:{port}').read())",
    "metadata of a cloud": "import urllib.request; print(urllib.request.urlopen('http://169.254.169.254').read())",
    "name": "import socket; print(socket.getaddrinfo('example.com', 80))",
    "Unix socket": "import socket; socket.socket(socket.AF_UNIX).connect(folder + '/unix')",
    "abstract Unix socket": "import socket; socket.socket(socket.AF_UNIX).connect(abstract)",
    "pair of sockets": "import socket; socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
    "netlink": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "packets": "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "virtual machine's socket": "import socket; socket.socket(40, socket.SOCK_STREAM)",
    "kernel's cryptography": "import socket; socket.socket(38, socket.SOCK_SEQPACKET)",
    "descriptor as a socket": "import socket; socket.socket(fileno=os.dup(1)).send(b'x')",
    "loop of asyncio": "import asyncio; asyncio.run(asyncio.open_connection('127.0.0.1', port))",
    "system call": "syscall(41, 2, 1, 0)",
}

PROCESSES = {
    "fork": "print(os.fork())",
    "vfork": "syscall(58)",
    "clone a process": "syscall(56, 17, None, None, None, None)",
    "clone a thread in a namespace": "syscall(56, 0x3D0F00 | 0x10000000, None, None, None, None)",
    "clone with high bits": "syscall(56, ctypes.c_ulong(0x1003D0F00), None, None, None, None)",
    "clone3": "syscall(435, bytes(88), 88)",
    "exec": "os.execv('/bin/sh', ['sh', '-c', 'true'])",
    "exec the interpreter": "import sys; os.execv(sys.executable, ['python', '-c', 'print(1)'])",
    "exec by the loader": "os.execv('/lib64/ld-linux-x86-64.so.2', ['ld', '/bin/true'])",
    "exec a descriptor": "syscall(322, os.open(os.__file__, os.O_RDONLY), b'', None, None, 0x1000)",
    "subprocess": "import subprocess; subprocess.run(['true'])",
    "shell": "if os.system('true'): raise OSError",
    "popen": "print(os.popen('id').read())",
    "spawn": "os.posix_spawn('/bin/true', ['true'], {})",
    "multiprocessing": "import multiprocessing as m; m.get_context('spawn').Process(target=print).start()",
    "pool of processes": "import concurrent.futures as f; f.ProcessPoolExecutor(1).submit(print).result()",
    "signal to the service": "import signal; os.kill(parent, signal.SIGUSR1)",
    "question whether the service is there": "os.kill(parent, 0)",
    "signal to its group": "import signal; os.kill(0, signal.SIGURG)",
    "signal to a group": "import signal; os.killpg(os.getpgrp(), signal.SIGURG)",
    "signal to all": "import signal; os.kill(-1, signal.SIGURG)",
    "signal to a thread of the service": "syscall(234, parent, parent, 10)",
    "signal to a thread": "syscall(200, parent, 10)",
    "signal with a value": "syscall(129, parent, 10, bytes(128))",
    "signal to a thread with a value": "syscall(297, parent, parent, 10, bytes(128))",
    "signal by a descriptor's owner": "import fcntl; fcntl.fcntl(1, fcntl.F_SETOWN, parent)",
    "signal by ioctl": "import fcntl, struct; fcntl.ioctl(1, 0x8901, struct.pack('i', parent))",
    "signal by a timer": "syscall(222, 1, struct_sigevent, bytes(8))",
    "handle of the service": "os.pidfd_open(parent)",
    "descriptor of the service": "syscall(438, 3, 0, 0)",
    "trace the service": "syscall(101, 16, parent, None, None)",
    "be traced": "syscall(101, 0, 0, None, None)",
    "read memory of the service": "syscall(310, parent, bytes(16), 1, bytes(16), 1, 0)",
    "write memory of the service": "syscall(311, parent, bytes(16), 1, bytes(16), 1, 0)",
    "compare with the service": "syscall(312, os.getpid(), parent, 0, 0, 0)",
    "advise memory of the service": "syscall(440, 3, bytes(16), 1, 4, 0)",
    "outlive the service": "prctl(1, 0)",
    "be dumped": "prctl(4, 1)",
    "let others trace it": "prctl(0x59616D61, -1)",
    "adopt processes": "prctl(36, 1)",
    "move its memory map": "prctl(35, 1, 0)",
    "limits of the service": "import resource; resource.prlimit(parent, resource.RLIMIT_NOFILE, (3, 3))",
    "read limits of the service": "import resource; print(resource.prlimit(parent, resource.RLIMIT_NOFILE))",
    "more memory": "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "more CPU time": "import resource; resource.setrlimit(resource.RLIMIT_CPU, (-1, -1))",
    "priority": "os.setpriority(os.PRIO_PROCESS, 0, 0)",
    "priority of the service": "os.setpriority(os.PRIO_PROCESS, parent, 19)",
    "scheduling": "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
    "CPUs": "os.sched_setaffinity(0, {0})",
    "CPUs of the service": "os.sched_setaffinity(parent, {0})",
    "session": "os.setsid()",
    "process group": "os.setpgid(0, 0)",
    "user": "os.setuid(0)",
    "groups": "os.setgroups([0])",
    "capabilities": "syscall(126, bytes(8), bytes(24))",
}

KERNEL = {
    "io_uring": "syscall(425, 8, bytes(120))",
    "bpf": "syscall(321, 0, bytes(128), 128)",
    "perf events": "syscall(298, bytes(128), 0, -1, -1, 0)",
    "userfaultfd": "syscall(323, 0)",
    "keyring": "syscall(250, 0, -3, 0)",
    "add a secret": "syscall(248, b'user', b'x', b'x', 1, -3)",
    "namespace": "syscall(272, 0x10000000)",
    "enter a namespace": "syscall(308, 3, 0)",
    "another filter": "syscall(317, 1, 0, bytes(16))",
    "another filter by prctl": "prctl(22, 2, bytes(16))",
    "another ruleset": "syscall(444, bytes(8), 8, 0)",
    "module": "syscall(175, bytes(8), 8, b'')",
    "module of a file": "syscall(313, 3, b'', 0)",
    "another kernel": "syscall(246, 0, 0, None, 0)",
    "reboot": "syscall(169, 0xFEE1DEAD, 672274793, 0x1234567, None)",
    "clock": "import time; time.clock_settime(time.CLOCK_REALTIME, 0)",
    "name of the machine": "import socket; socket.sethostname('x')",
    "ports": "syscall(173, 0, 8, 1)",
    "descriptor table of the CPU": "syscall(154, 1, bytes(16), 16)",
    "personality": "syscall(135, 0x0040000)",
    "shared memory": "syscall(29, 0, 4096, 0o1600)",
    "messages": "syscall(68, 0, 0o1600)",
    "semaphores": "syscall(64, 0, 1, 0o1600)",
    "queue with a name": "syscall(240, b'x', 0o102, 0o600, None)",
    "semaphore with a name": "import multiprocessing as m; m.Semaphore()",
    "kernel's log": "syscall(103, 3, bytes(100), 100)",
    "swap": "syscall(167, folder.encode(), 0)",
    "accounting": "syscall(163, folder.encode())",
    "memory of several nodes": "syscall(238, 0, None, 0)",
    "locked memory": "syscall(149, bytes(8), 8)",
    "merged memory": "syscall(28, 0, 0, 12)",
    "merged memory for all": "prctl(67, 1)",
    "pipe of kernel events": "syscall(293, bytes(8), 0x80)",
    "huge pages": "syscall(9, None, 1 << 21, 3, 0x40022, -1, 0)",
    "stack that grows": "syscall(9, None, 4096, 3, 0x122, -1, 0)",
    "priority inheritance": "syscall(202, bytes(8), 6, 0, None, None, 0)",
    "priority inheritance by requeue": "syscall(202, bytes(8), 12 | 128, 0, None, bytes(8), 0)",
    "name of a mapping": "prctl(0x53564D41, 0, 0, 0, 0)",
    "larger pipe": "import fcntl; fcntl.fcntl(1, 1031, 1 << 20)",
    "descriptors for one thread": "syscall(436, 100, 200, 2)",
    "splice": "syscall(275, 0, None, 1, None, 1, 0)",
    "duplicate a pipe": "syscall(276, 0, 1, 1, 0)",
    "x32": "syscall(0x40000000 | 257, -100, secret.encode(), 0)",
    "unknown call": "syscall(511)",
    "unknown call, far": "syscall(100000)",
}

REFUSED = {
    f"{group}: {name}": code
    for group, attempts in {"file": FILES, "network": NETWORK, "process": PROCESSES, "kernel": KERNEL}.items()
    for name, code in attempts.items()
}

WITH_ANOTHER_ERROR = {
    "file: open by openat2",
    "file: list by glob",
    "file: walk",
    "file: write a temporary file",
    "file: physical memory",
    "file: database",
    "file: load a library",
    "file: import from the folder",
    "file: limit of its files",
    "network: name",
    "process: clone3",
    "process: shell",
    "process: more memory",
    "process: more CPU time",
}
"""All others are refused with EPERM or EACCES, so not because they are written wrongly."""

PRELUDE = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
struct_sigevent = bytes(64)

def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

def syscall(number, *arguments):
    return checked(libc.syscall(number, *arguments))

def prctl(*arguments):
    return checked(libc.prctl(*arguments, *[0] * (5 - len(arguments))))
"""


def attempt(code: str) -> str:
    """A cell that says whether the code was refused."""
    body = "\n".join(f"    {line}" for line in code.splitlines())
    refused = "except Exception as error:\n    print('refused', repr(error))"
    return f"{PRELUDE}\ntry:\n{body}\n{refused}\nelse:\n    print('ESCAPED')\n"
