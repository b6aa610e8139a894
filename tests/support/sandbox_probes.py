# ruff: noqa: E501
"""Containment probes by their ids in docs/design/containment_checks.md: Python that runs inside and prints what does not hold."""

from __future__ import annotations

PROLOGUE = """
import ctypes, errno, glob, json, os, resource, signal, socket, stat, struct, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
bad = []
def opens(path, flags=os.O_RDONLY):
    try: os.close(os.open(path, flags | os.O_NONBLOCK)); return True
    except OSError: return False
def reads(path):
    try:
        with open(path, 'rb') as f: return bool(f.read(1))
    except OSError: return False
def allowed(name, number, *args):
    r = libc.syscall(number, *args)
    if r >= 0 or ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS):
        bad.append(f'{name}: {r} {ctypes.get_errno()}')
X = os.uname().machine == 'x86_64'
"""

PROBES: dict[str, str] = {
    "00 exit codes, loopback, workspace": """
if subprocess.call(['/bin/sh', '-c', 'exit 7']) != 7: bad.append('exit')
if subprocess.call(['/bin/sh', '-c', 'kill -9 $$']) != -9: bad.append('signal')
with socket.create_server(('127.0.0.1', 0)) as s: socket.create_connection(s.getsockname(), 2).close()
open('/workspace/f', 'w').write('x')
""",
    "01 system is read-only": """
for d in '/ /etc /usr /usr/bin /usr/local /usr/lib /bin /lib /sbin /opt /boot /root /home /var /var/lib /var/log /srv /mnt /media /sys /proc /proc/sys /dev /toolchain /fleet /fleet/inside'.split():
    if opens(d + '/made', os.O_CREAT | os.O_WRONLY): bad.append(d)
""",
    "02 host files are absent": """
for p in [CANARY, STATE, '/etc/shadow', '/proc/1/root/etc/shadow', '/root/.ssh', '/root/.bashrc', '/var/run/docker.sock', '/run/podman', '/run/dbus', '/tmp/ray', '/var/run/secrets']:
    if os.path.lexists(p): bad.append(p)
""",
    "03 tmp is private": "bad += os.listdir('/tmp') + os.listdir('/var/tmp')\n",
    "05 setuid and setgid bits are refused": """
open('f', 'w').write('x'); os.mkdir('d')
for mode in (0o4755, 0o2755, 0o6755):
    for what in ('chmod', 'fchmod', 'open', 'mkdir', 'mknod', 'dir'):
        try:
            if what == 'chmod': os.chmod('f', mode)
            elif what == 'fchmod':
                with open('f') as f: os.fchmod(f.fileno(), mode)
            elif what == 'open': os.close(os.open(f'o{mode}', os.O_CREAT | os.O_WRONLY, mode))
            elif what == 'mkdir': os.mkdir(f'm{mode}', mode)
            elif what == 'mknod': os.mknod(f'n{mode}', mode | stat.S_IFREG)
            else: os.chmod('d', mode)
            bad.append(f'{what} {mode:o}')
        except PermissionError: pass
bad += [p for p in os.listdir('.') if os.lstat(p).st_mode & 0o6000]
""",
    "06 link in the workspace to a host file": """
os.symlink(CANARY, 'link')
if reads('link'): bad.append('read')
if opens('link', os.O_WRONLY): bad.append('write')
""",
    "07 hard links to system files": """
for p in ('/usr/bin/env', '/bin/sh', '/etc/passwd'):
    try: os.link(p, 'hard'); bad.append(p); os.unlink('hard')
    except OSError: pass
""",
    "08 mounts": """
for name, args in {'remount': (b'none', b'/', None, 0x20, None), 'tmpfs': (b'tmpfs', b'/mnt', b'tmpfs', 0, None), 'bind': (b'/tmp', b'/usr', None, 0x1000, None)}.items():
    if libc.mount(*args) == 0: bad.append(name)
if libc.umount2(b'/proc', 2) == 0: bad.append('umount')
""",
    "09 devices": """
for kind, device in ((stat.S_IFCHR, (1, 3)), (stat.S_IFBLK, (8, 0)), (stat.S_IFCHR, (1, 11))):
    try: os.mknod('node', kind | 0o666, os.makedev(*device)); bad.append(str(device))
    except OSError: pass
bad += [p for p in 'mem kmem port kmsg kvm fuse vda sda loop0 net/tun vsock vhost-vsock userfaultfd snapshot uinput'.split() if os.path.exists('/dev/' + p)]
known = set('console core fd full null ptmx pts random shm stderr stdin stdout tty urandom zero'.split())
bad += sorted(set(os.listdir('/dev')) - known)
""",
    "10 memory-backed folders have a size": """
for d, most in {'/tmp': 256, '/dev/shm': 64, '/run': 1, '/home/agent': 64}.items():
    s = os.statvfs(d)
    if s.f_blocks * s.f_frsize > most << 20: bad.append(d)
if opens('/dev/made', os.O_CREAT | os.O_WRONLY): bad.append('/dev')
""",
    "12 one file has a size": """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with open('big', 'wb') as f:
    try: f.truncate(600 << 20); bad.append('600 MB')
    except OSError as e:
        if e.errno != errno.EFBIG: bad.append(str(e))
""",
    "13 environment of the supervisor": """
for p in glob.glob('/proc/[0-9]*/environ'):
    try: content = open(p, 'rb').read()
    except OSError: continue
    if SECRET.encode() in content: bad.append(p)
    if p == '/proc/1/environ' and content: bad.append('pid 1 has an environment')
if SECRET in repr(dict(os.environ)): bad.append('environ')
""",
    "14 processes of the host": """
pids = [int(p) for p in os.listdir('/proc') if p.isdecimal()]
if len(pids) > 3: bad.append(f'{len(pids)} processes')
for p in pids:
    line = open(f'/proc/{p}/cmdline', 'rb').read().decode()
    if STATE in line.split('-c\\0')[0]: bad.append('host path in ' + line[:80])
try: os.kill(HOST_PID, 0); bad.append('signal to the host')
except OSError: pass
""",
    "15 descriptors": "bad += [f'{n} {os.readlink(f\"/proc/self/fd/{n}\")}' for n in os.listdir('/proc/self/fd') if int(n) > 2 and os.path.exists(f'/proc/self/fd/{n}')]\n",
    "16 kernel files": """
for p in '/proc/sys/kernel/core_pattern /proc/sys/kernel/printk /proc/sys/vm/drop_caches /proc/sys/kernel/modprobe /proc/sys/fs/binfmt_misc/register /proc/sysrq-trigger /sys/kernel/uevent_helper /sys/fs/cgroup/release_agent /sys/fs/cgroup/cgroup.procs'.split():
    if opens(p, os.O_WRONLY): bad.append('write ' + p)
for p in '/proc/kcore /proc/kmsg /proc/kallsyms /proc/keys /proc/cmdline /proc/config.gz /proc/interrupts /proc/timer_list'.split():
    if reads(p): bad.append('read ' + p)
if libc.klogctl(3, ctypes.create_string_buffer(99), 99) >= 0: bad.append('syslog')
""",
    "17 uid, capabilities, flags": """
status = {k: v.strip() for k, _, v in (l.partition(':') for l in open('/proc/self/status'))}
bad += [n for n in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb') if int(status[n], 16)]
if (status['NoNewPrivs'], status['Seccomp']) != ('1', '2'): bad.append('flags')
if 0 in (os.getuid(), os.geteuid(), os.getgid()): bad.append('uid 0')
""",
    "18 setuid files": """
with open('/proc/mounts') as f:
    if not any(l.split()[1] == '/workspace' and 'nosuid' in l for l in f): bad.append('workspace without nosuid')
""",
    "19 own IPC and UTS": """
if open('/proc/sysvipc/shm').read().count('\\n') > 1: bad.append('shared memory')
if os.uname().nodename != 'sandbox': bad.append(os.uname().nodename)
if libc.sethostname(b'x', 1) == 0: bad.append('sethostname')
""",
    "20 terminal": """
if opens('/dev/tty', os.O_RDWR): bad.append('tty')
import fcntl
leader, follower = os.openpty()
for number in (0x5412, 0x541C):
    try: fcntl.ioctl(follower, number, b'x'); bad.append(hex(number))
    except PermissionError: pass
""",
    "21 namespaces": """
for name, flag in {'user': 0x10000000, 'mount': 0x20000, 'pid': 0x20000000, 'net': 0x40000000, 'ipc': 0x8000000, 'uts': 0x4000000, 'cgroup': 0x2000000, 'time': 0x80}.items():
    if libc.unshare(flag) == 0: bad.append(name)
allowed('clone3', 435, None, 0)
if libc.setns(os.open('/proc/self/ns/net', os.O_RDONLY), 0) == 0: bad.append('setns')
""",
    "22 mount calls": """
if libc.chroot(b'/tmp') == 0: bad.append('chroot')
for name, n in {'pivot_root': 155 if X else 41, 'fsopen': 430, 'open_tree': 428, 'mount_setattr': 442, 'move_mount': 429, 'fspick': 433}.items(): allowed(name, n, 0, 0, 0, 0, 0)
""",
    "23 kernel surface": """
for name, (x, a) in {'ptrace': (101, 117), 'process_vm_readv': (310, 270), 'keyctl': (250, 219), 'add_key': (248, 217), 'bpf': (321, 280), 'perf_event_open': (298, 241), 'userfaultfd': (323, 282), 'io_uring_setup': (425, 425), 'kexec_load': (246, 104), 'finit_module': (313, 273), 'open_by_handle_at': (304, 265), 'pidfd_getfd': (438, 438), 'reboot': (169, 142), 'acct': (163, 89), 'fanotify_init': (300, 262), 'clock_settime': (227, 112), 'swapon': (167, 224), 'memfd_secret': (447, 447), 'openat2': (437, 437)}.items():
    allowed(name, x if X else a, 0, 0, 0, 0, 0)
if libc.personality(0x0040000) >= 0: bad.append('personality')
""",
    "24 other architectures": """
if X:
    allowed('x32', 0x40000000 + 39)
    import mmap
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        m = mmap.mmap(-1, 4096, prot=7); m.write(b'\\xb8\\x14\\0\\0\\0\\xcd\\x80\\xc3')
        ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()
        os._exit(0)
    if not os.WIFSIGNALED(os.waitpid(pid, 0)[1]): bad.append('int 0x80 lived')
""",
    "25 socket families": """
for name, args in {'VSOCK': (40, 1, 0), 'ALG': (38, 5, 0), 'PACKET': (17, 3, 0), 'AUDIT': (16, 3, 9), 'KOBJECT': (16, 3, 15), 'XFRM': (16, 3, 6), 'GENERIC': (16, 3, 16), 'KEY': (15, 3, 2), 'CAN': (29, 3, 1), 'BT': (31, 3, 1), 'TIPC': (30, 1, 0), 'XDP': (44, 3, 0), 'RDS': (21, 5, 0), 'SMC': (43, 1, 0), 'QIPCRTR': (42, 2, 0)}.items():
    if libc.socket(*args) >= 0 or ctypes.get_errno() != errno.EAFNOSUPPORT: bad.append(name)
if libc.socket(2, 3, 255) >= 0: bad.append('RAW')
""",
    "26 interfaces and routes": """
bad += [n for _, n in socket.if_nameindex() if n != 'lo']
if len(open('/proc/net/route').readlines()) > 1: bad.append('routes')
if os.path.exists('/sys/class/net'): bad.append('sys')
""",
    "27 services of the host": """
for family, address in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET, '127.1.2.3'), (socket.AF_INET, '0.0.0.0'), (socket.AF_INET6, '::1'), (socket.AF_INET6, '::ffff:127.0.0.1')):
    with socket.socket(family) as s:
        s.settimeout(1)
        if s.connect_ex((address, PORT)) == 0: bad.append(address)
with socket.socket() as s:
    if s.connect_ex(('192.0.2.1', 80)) not in (errno.ENETUNREACH, errno.EHOSTUNREACH): bad.append('egress')
""",
    "28 unix sockets of the host": """
for name in ('\\0' + ABSTRACT, PATH_SOCKET):
    with socket.socket(socket.AF_UNIX) as s:
        if s.connect_ex(name) == 0: bad.append(name)
""",
    "29 names are not resolved": """
begun = time.monotonic()
try: socket.getaddrinfo('example.org', 80); bad.append('resolved')
except OSError: pass
if time.monotonic() - begun > 3: bad.append('slow')
""",
    "30 processes and threads": """
import threading
gate, threads = threading.Event(), []
try:
    for _ in range(256):
        t = threading.Thread(target=gate.wait); t.start(); threads.append(t)
    bad.append('256 threads')
except RuntimeError: pass
gate.set(); [t.join() for t in threads]
if len(threads) < 8: bad.append(f'only {len(threads)}')
""",
    "33 descriptors and core files": """
held = []
try:
    for _ in range(70000): held.append(os.open('/dev/null', os.O_RDONLY))
    bad.append('70000 descriptors')
except OSError as e:
    if e.errno != errno.EMFILE: bad.append(str(e))
for n in held: os.close(n)
if resource.getrlimit(resource.RLIMIT_CORE) != (0, 0): bad.append('core')
""",
    "39 standard input is at its end": "if sys.stdin.read() != '': bad.append('input')\n",
    "44 variables": """
allowed_names = set('PATH HOME USER LOGNAME SHELL LANG TMPDIR TERM GIT_TERMINAL_PROMPT GIT_CONFIG_NOSYSTEM PIP_DISABLE_PIP_VERSION_CHECK PYTHONDONTWRITEBYTECODE SANDBOX PWD LC_CTYPE'.split())
bad += sorted(set(os.environ) - allowed_names)
""",
    "S24 inside scripts are readable": "if not os.path.isfile('/fleet/inside/preflight.py'): bad.append('missing')\n",
}
"""Id and what must hold -> the probe's code, after PROLOGUE; it adds to `bad` what it could do."""
