"""The programs that are compared: each does its input and output in another way.

Daemons that a workload starts it also ends, since strace waits for all of them.
"""

from __future__ import annotations

from textwrap import dedent

from oracle.strace import strace_command

_COREUTILS = """
    cp -a /srv/tree /tmp/tree; cd /tmp/tree; ls -lR . > /tmp/list; du -a . | sort -n -o /tmp/sizes
    mkdir -p a/b/c; mv d1 a/b/c; ln d2/f2.txt hard; ln -s d2/f2.txt soft; readlink -f soft; cat hard soft > /dev/null
    chmod 600 hard; chown 1:1 hard; touch -d @1 hard soft; stat hard > /dev/null; truncate -s 100 hard; rm -r a d3
    mkfifo pipe; mknod node p; rm pipe node; dd if=/srv/bytes of=/tmp/y bs=3k skip=5 seek=7 count=20 conv=notrunc
    split -b 100k /srv/bytes /tmp/part; cat /tmp/part* | cmp - /srv/bytes; head -c 10 /srv/bytes | od -c; tail -n 3 hard
    install -m 644 hard /tmp/installed; sync hard; tac d5/f5.txt | tee /tmp/t1 /tmp/t2 | wc -l; shuf -n 5 /tmp/list
    rmdir nothing || :; cat nothing || :; ls nothing || :; cd nothing || :; df /tmp; test -w /etc/passwd; mktemp -d
"""
_FIND = """
    find /srv /etc /usr/share/perl5 -type f -name '*.p?' -newermt 2000-01-01 -print0 | xargs -0 -n 40 grep -l pack || :
    cd /srv; find . -type d -exec test -r {} \\; -print; find /usr/share/zoneinfo -xtype l -ls; find /nowhere || :
"""
_TAR = """
    cd /tmp; tar -C /srv -cf - tree | gzip -n > t.gz; gzip -dc t.gz | tar -xf -; tar -tzf t.gz | wc -l
    tar -C /srv -cf sparse.tar --sparse tree; tar -rf sparse.tar t.gz; tar -df sparse.tar -C /srv || :; cp t.gz u.gz
    gunzip u.gz
"""
_XZ = """
    cd /tmp; cp /srv/bytes .; xz -1 -T2 bytes; xz -t bytes.xz; xz -d bytes.xz; xz -l nothing.xz || :; xzcat bytes || :
"""
_GIT = """
    export HOME=/tmp GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a
    export GIT_COMMITTER_EMAIL=a@b GIT_PAGER=cat; cp -r /srv/tree /tmp/tree; cd /tmp/tree
    git -c init.defaultBranch=main init -q; git add -A; git commit -q -m one; echo x >> d1/f1.txt; git mv d2 e2
    git commit -q -a -m two; git log --stat; git checkout -q -b other HEAD~1; git merge -q main; git gc -q; git status
    git stash; git clone -q . ../clone; git fsck
"""
_SQL = """
    sqlite3 /tmp/x.db "create table t(a integer primary key, b text); begin; with recursive n(i) as (select 1 union all
    select i + 1 from n where i < 9000) insert into t select i, hex(i * 7919) from n; commit; create index u on t(b);
    select count(*), sum(length(b)) from t where b > '4'; update t set b = b || 'x' where a % 7 = 0; vacuum;"
    sqlite3 /tmp/x.db "pragma journal_mode = wal; update t set b = '' where a % 3 = 0; pragma wal_checkpoint;"
    sqlite3 /tmp/x.db ".backup /tmp/y.db"
    sqlite3 -readonly /tmp/y.db "pragma mmap_size = 1000000; pragma integrity_check"
"""
_PYTHON = """
    python3 - <<'END'
    import csv, decimal, email.message, http.client, json, logging.config, os, subprocess, tempfile, threading
    import concurrent.futures, xml.etree.ElementTree
    def work(number):
        with tempfile.TemporaryDirectory() as name:
            for n in range(20):
                with open(f"{name}/{n}", "w+b") as file:
                    file.write(b"x" * (n * 997)); file.seek(n); file.read(100); os.ftruncate(file.fileno(), n)
                    os.pwrite(file.fileno(), b"abc", 10 * n); os.pwritev(file.fileno(), [b"a", b"bc"], 5)
            return sum(entry.stat().st_size for entry in os.scandir(name))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        print(list(pool.map(work, range(8))))
    print(json.dumps(sorted(open("/srv/tree/d1/f1.txt"))), subprocess.run(["cat", "/etc/issue"], check=True))
    END
"""
_PERL = """
    perl -MFile::Find -MFile::Copy -MTime::HiRes=ualarm -MStorable -e '
    find(sub { push @all, $File::Find::name if -f }, "/srv/tree"); copy($_, "/tmp/x") for @all[0..9];
    store(\\@all, "/tmp/s"); retrieve("/tmp/s"); open(F, "+<", "/tmp/x"); seek(F, 5, 0); print F "hello"; close(F);
    pipe(R, W); $SIG{ALRM} = sub { $n++ }; ualarm(20000); sysread(R, $b, 1); $SIG{ALRM} = "IGNORE";
    sysopen(N, "/nowhere", 0);
    exec("cat", "/tmp/x") unless $pid = fork; waitpid($pid, 0); kill(9, $$) if !fork; wait; print "$n\\n"'
    perl -pi -e 's/file/line/' /tmp/x
"""
_GCC = """
    cd /tmp; printf '#include <stdio.h>\\n#include <stdlib.h>\\nint f(void);int main(void){puts("x");return f();}' >a.c
    echo 'int f(void) { return 0; }' > b.c; gcc -O2 -g -c a.c; gcc -c b.c; ar rcs libb.a b.o; gcc -pipe a.o -L. -lb
    mv a.out ab; ./ab; strip ab; objdump -d ab > d; gcc -E nothing.c || :; ld -r a.o b.o -o c.o
"""
_MAKE = """
    mkdir /tmp/m; cd /tmp/m; for n in 1 2 3 4; do echo "int f$n(void) { return $n; }" > f$n.c; done
    printf 'all: f1.o f2.o f3.o f4.o\\n\\tar rc lib.a $^\\n%%.o: %%.c\\n\\tgcc -c $< -o $@.new && mv $@.new $@\\n' \\
    > Makefile; make -j2; touch f2.c; make -j2; make -n nothing || :
"""
_RSYNC = """
    rsync -a /srv/tree/ /tmp/copy/; cd /tmp/copy; rm d1/f1.txt; echo more >> d2/f2.txt; touch new
    rsync -a --delete --checksum /srv/tree/ /tmp/copy/; rsync -a --inplace --backup /srv/bytes /tmp/copy/d2/f2.txt
"""
_DPKG = """
    cd /tmp; mkdir -p p/DEBIAN p/usr/share/thing; cp -r /srv/tree/d1 p/usr/share/thing
    printf 'Package: thing\\nVersion: 1\\nArchitecture: all\\nMaintainer: a <a@b>\\nDescription: x\\n' >p/DEBIAN/control
    printf '#!/bin/sh\\necho configured > /usr/share/thing/done\\n' > p/DEBIAN/postinst; chmod 755 p/DEBIAN/postinst
    dpkg-deb --root-owner-group -Znone -b p thing.deb; dpkg -c thing.deb; dpkg -i thing.deb; dpkg -L thing
    dpkg -V thing; dpkg -i thing.deb; dpkg -r thing
"""
_APT = "dpkg-query -W > /tmp/packages; apt-cache policy dash; apt-cache pkgnames | wc -l; apt-config dump | wc -l"
_NGINX = """
    cat > /tmp/nginx.conf <<'END'
    worker_processes 2; user root; pid /tmp/nginx.pid; error_log /tmp/error.log; events { worker_connections 64; }
    http { access_log /tmp/access.log; sendfile on; gzip on; gzip_min_length 100; open_file_cache max=10;
      client_body_temp_path /tmp/bodies; server { listen 127.0.0.1:8080; root /srv; autoindex on;
      location /buffered { alias /srv; sendfile off; } location /aio { alias /srv; aio threads; } } }
    END
    nginx -c /tmp/nginx.conf; python3 - <<'END'
    import http.client
    connection = http.client.HTTPConnection("127.0.0.1", 8080)
    for path in ("/bytes", "/tree/", "/tree/d1/f1.txt", "/nothing", "/buffered/bytes", "/aio/bytes"):
        for headers in ({}, {"Range": "bytes=1000-200000"}, {"Accept-Encoding": "gzip"}):
            connection.request("GET", path, headers=headers); connection.getresponse().read()
    connection.close()
    END
    nginx -c /tmp/nginx.conf -s quit
"""
_REDIS = """
    cd /tmp; redis-server --port 0 --unixsocket /tmp/r.sock --dir /tmp --daemonize yes --appendonly yes --save '' \\
    --logfile /tmp/redis.log --enable-debug-command local
    until redis-cli -s r.sock ping; do sleep 0.05; done
    for n in $(seq 20); do echo "set key$n $n"; echo "lpush list $n"; done | redis-cli -s r.sock
    redis-cli -s r.sock save; redis-cli -s r.sock bgrewriteaof; redis-cli -s r.sock debug reload
    redis-cli -s r.sock shutdown nosave
"""
_POSTGRES = """
    mkdir /tmp/pg; cd /tmp/pg; export PATH=$PATH:/usr/lib/postgresql/15/bin PGDATA=/tmp/pg/data
    initdb --no-sync --auth=trust --no-locale --encoding=UTF8
    pg_ctl -w -o '-k /tmp/pg -h "" -c jit=off' -l /tmp/pg/log start
    psql -h /tmp/pg -c 'create table t as select i, md5(i::text) m from generate_series(1, 9000) i' \\
    -c 'create index on t(m)' -c 'select count(*) from t where m > $$a$$' -c 'checkpoint' -c 'vacuum full t' \\
    -c 'drop table t' postgres
    pg_ctl -w -m fast stop
"""
_NODE = """
    cat > /tmp/x.js <<'END'
    const fs = require("fs"), { pipeline } = require("stream/promises"), zlib = require("zlib");
    (async () => {
      await Promise.all([...Array(20).keys()].map(async n => {
        const name = `/tmp/node${n}`; await fs.promises.writeFile(name, "x".repeat(n * 1000));
        await fs.promises.appendFile(name, "y"); await fs.promises.rename(name, name + "b");
        return (await fs.promises.readFile(name + "b")).length; }));
      await pipeline(fs.createReadStream("/srv/bytes"), zlib.createGzip(), fs.createWriteStream("/tmp/n.gz"));
      fs.cpSync("/srv/tree/d1", "/tmp/d1", { recursive: true }); fs.rmSync("/tmp/d1", { recursive: true });
      try { fs.statSync("/nowhere") } catch {} fs.readdirSync("/srv/tree");
    })();
    END
    node /tmp/x.js
"""
_BASH = """
    bash -c 'cd /tmp; cat <<END > here
    $(seq 2000)
    END
    while read -r line; do echo "$line"; done < here | tail -n 5 > tail; mapfile -t all < here; cat <<< "${all[5]}"
    diff <(sort here) <(sort -r here) | head -n 3; exec 5<> both; echo 1 >&5; echo 2 >&5; read -u 5 x; exec 5>&-
    echo a >> log; echo b >> log; (cd /srv; echo *) > star; coproc cat; echo hi >&${COPROC[1]}; exec {COPROC[1]}>&-
    wait; trap "echo got" USR1; (sleep 0.1; kill -USR1 $$) & read -t 0.3 < <(sleep 1); wait; set -o noclobber
    echo x > log || :; [[ -f log && -x /bin/sh && ! -e nothing ]] && source /dev/stdin <<< "true"
    printf %s "$(< log)"; cat log >&0 || :'
"""
_CAREFUL = """
    cd /tmp; cp /srv/tree/d9/f199.txt a; sed -i s/file/line/ a; sort -o a a; install a b; mv b a; cp --backup a b
    ln -sf a l; cp --reflink=auto a c; python3 - <<'END'
    import os, tempfile
    os.chdir("/tmp")
    for n in range(30):
        handle, name = tempfile.mkstemp(dir=".")
        os.write(handle, b"content %d" % n); os.fsync(handle); os.fchmod(handle, 0o644); os.rename(name, "config")
        os.write(handle, b" and more"); os.close(handle)
        directory = os.open(".", os.O_RDONLY); os.fsync(directory); os.close(directory)
    os.mkdir("d"); directory = os.open("d", os.O_RDONLY)
    os.rename("config", "d/config"); os.rename("d", "e"); os.stat("config", dir_fd=directory)
    os.replace("config", "again", src_dir_fd=directory, dst_dir_fd=directory); os.unlink("again", dir_fd=directory)
    END
"""
_MMAP = """
    python3 - <<'END'
    import mmap, os
    with open("/srv/bytes", "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        print(sum(view[::4096]), view.find(b"abc"))
    with open("/tmp/m", "w+b") as file:
        file.truncate(100000)
        with mmap.mmap(file.fileno(), 0) as view:
            view[5000:5010] = b"0123456789"; view.flush(); view.resize(200000); view[150000] = 1; view.flush(4096, 8192)
        with mmap.mmap(file.fileno(), 4096, offset=8192, flags=mmap.MAP_PRIVATE) as view:
            view[0] = 1
        os.unlink("/tmp/m")
        with mmap.mmap(file.fileno(), 4096) as view:
            view[0] = 1
    END
"""
_FIO = (
    "fio --name=x --filename=/tmp/fio --size=2m --bs=4k --ioengine={} --randseed=7 --thread --rw={} --invalidate=0"
    " --fallocate=none --output=/dev/null {}"
)
_BUSYBOX = """
    cd /srv/tree; busybox sh -c 'busybox find . -type f | busybox sort | busybox xargs busybox cat | busybox grep -c 1'
    busybox dd if=/srv/bytes of=/tmp/y bs=3k; busybox md5sum /tmp/y; busybox sed -i s/1/2/ /tmp/y; busybox cp -a . /tmp
"""

WORKLOADS = {
    "coreutils": _COREUTILS,
    "find": _FIND,
    "tar and gzip": _TAR,
    "xz": _XZ,
    "git": _GIT,
    "sqlite": _SQL,
    "python": _PYTHON,
    "perl": _PERL,
    "gcc": _GCC,
    "make": _MAKE,
    "rsync": _RSYNC,
    "dpkg": _DPKG,
    "apt": _APT,
    "nginx": _NGINX,
    "redis": _REDIS,
    "postgres": _POSTGRES,
    "node": _NODE,
    "bash": _BASH,
    "careful writers": _CAREFUL,
    "mapped files": _MMAP,
    "fio, threads": _FIO.format("psync", "randrw", "--numjobs=2"),
    "fio, vectors": _FIO.format("pvsync2", "readwrite", "--direct=1"),
    "fio, libaio": _FIO.format("libaio", "randrw", "--iodepth=4"),
    "busybox": _BUSYBOX,
    "go": "goroutines /srv/tree /tmp/go",
    "rust": "rusty /srv/tree /tmp/rust",
    "io_uring": "uring /srv/bytes || test $? = 3",  # some engines and kernels have none
    "corners": "mkdir /tmp/corners; cd /tmp/corners; corners",
    "known input and output": "known_io 7 100 /tmp/truth",
    "threads": "threads /srv/bytes",
    "forks": "pitfalls storm 100",
    "attributes": "attributes",
    "32 bits": "cd /tmp; cp /srv/bytes /srv/big.bin; for i in 1 2 3; do abi32; abi64; done",
}


# Whom a workload runs as, where it is not root. strace must not run as another user: it could not see the paths of
# descriptors then.
_USERS = {"postgres": "postgres"}


def command_of(name: str) -> list[str]:
    """The command of a workload, under strace, which leaves its account in /witness and all of it on its output.

    The workload fails if any command in it fails that is not meant to.
    """
    user = _USERS.get(name)
    switch = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
    script = ["sh", "-ec", dedent(WORKLOADS[name])]
    return ["witness", "/witness", *switch, *strace_command("/witness", script)]
