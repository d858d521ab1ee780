#!/bin/sh
# Makes .venv: libtorch for tch, and Python with Gymnasium and TensorBoard. The Makefile calls it.
#
#   sh envs/setup.sh [--quiet] [PYTHON]
#
# PYTHON   a Python 3.11. Left out: what .venv was made from, else python3, else python3.11.
# --quiet  not a word if .venv is ready.
# Exit     0 ready; 1 failed half-way, the next call begins again; 2 this machine lacks something, nothing changed.
set -eu
cd "$(dirname "$0")/.."
root=$(pwd)

quiet=
if [ "${1-}" = --quiet ]; then
    quiet=yes
    shift
fi
asked=${1-}

# Python in .venv must see its own packages only, and pip must install into it.
unset PYTHONHOME PYTHONPATH
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '%s\n' "$*"; }
refuse() {
    printf 'imago set-up: %s\n' "$*" >&2
    exit 2
}
fail() {
    printf 'imago set-up: %s\nRun it again afterwards: it begins anew, and pip keeps what it has fetched.\n' "$*" >&2
    exit 1
}

# One set-up at a time: two terminals may run `make demo` and `make test`.
if command -v flock >/dev/null; then
    exec 9<envs/setup.sh
    flock -n 9 || { say "Another set-up is at work here; waiting for it." && flock 9; }
fi

# The stamp .venv/.ready is written last and holds the requirements it stands for.
wanted=$(sed 's/[[:space:]]*#.*//; /^$/d' envs/requirements-libtorch.txt envs/requirements.txt)
is_ready() { [ -x .venv/bin/python ] && [ "$(cat .venv/.ready 2>/dev/null)" = "$wanted" ]; }
identity() { "$1" -c 'import sys; print(sys.base_prefix, sys.version)'; }
done_line() {
    say "Ready: .venv has Python $(sed -n 's/^version = //p' .venv/pyvenv.cfg), libtorch" \
        "$(say "$wanted" | sed -n 's/^torch==//p'), Gymnasium and TensorBoard. Next: make demo, or make test."
}
if [ -z "$asked" ] && is_ready; then
    [ -n "$quiet" ] || done_line
    exit 0
fi

# ---- the machine ----------------------------------------------------------------------------------------------
system="$(uname -s) $(uname -m)"
[ "$system" = "Linux x86_64" ] ||
    refuse "this is $system; supported is Linux on x86_64 (libtorch and .cargo/ are set up for that only)."
case $root in
*[,:]*) refuse "$root: a comma or colon in the path breaks the programs' run paths; move the checkout." ;;
esac

# ---- Python ---------------------------------------------------------------------------------------------------
get_python="Get one: on Debian 12, apt install python3.11 python3.11-venv python3.11-dev; elsewhere, with pyenv,
PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install 3.11. Then: make setup PYTHON=/path/to/python3.11"

# What the checks below need to know of an interpreter (any Python 2.7 or later can say it), one fact a line.
facts() {
    "$1" -c '
import platform, sys, sysconfig
def has(name):
    try:
        __import__(name)
        return True
    except ImportError:
        return False
print(platform.python_implementation() + " " + platform.python_version())
print(int(sysconfig.get_config_var("Py_ENABLE_SHARED") or 0))
print(sysconfig.get_config_var("LIBDIR"))
print(getattr(sys, "_base_executable", None) or sys.executable)
print(" ".join(name for name in ("venv", "ensurepip") if not has(name)))
print(" ".join(platform.libc_ver()).strip() or "another C library")
'
}
# `base` is the interpreter itself where `python` is a shim or belongs to some other virtual environment.
learn() {
    python=$1
    found=$(facts "$1") || return
    { read -r version && read -r shared && read -r libdir && read -r base && read -r lacks && read -r libc; } <<END
$found
END
}
is_311() { case $version in "CPython 3.11."*) ;; *) return 1 ;; esac }

if [ -n "$asked" ]; then
    command -v "$asked" >/dev/null || refuse "PYTHON=$asked: there is no such program. $get_python"
    learn "$asked" || refuse "PYTHON=$asked does not run (its own words are above). $get_python"
    is_311 || refuse "PYTHON=$asked is $version; needed is CPython 3.11. $get_python"
else
    version=
    others=
    for candidate in .venv/bin/python python3 python3.11; do
        command -v "$candidate" >/dev/null && learn "$candidate" 2>/dev/null && is_311 && break
        [ -z "$version" ] || others="$others ($candidate is $version)"
        version=
    done
    [ -n "$version" ] || refuse "CPython 3.11 is needed and neither python3 nor python3.11 is one$others. $get_python"
fi
[ "$shared" = 1 ] || refuse "$base is built without a shared libpython, which the program links to.
With pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install --force 3.11. Or take the distribution's:
apt install python3.11 libpython3.11 python3.11-venv python3.11-dev, then make setup PYTHON=/usr/bin/python3.11"
[ -e "$libdir/libpython3.11.so" ] || refuse "$libdir has no libpython3.11.so, which linking needs.
Debian and Ubuntu: apt install python3.11-dev. Fedora: dnf install python3.11-devel."
[ -z "$lacks" ] || refuse "$base cannot make virtual environments with pip in them (missing: $lacks).
Debian and Ubuntu: apt install python3.11-venv."
case $libc in
"glibc 2.2"[89]* | "glibc 2."[3-9][0-9]*) ;;
*) refuse "glibc 2.28 or later is needed for PyTorch's wheel; this is $libc." ;;
esac

# With .venv ready, only a PYTHON that .venv was not made from brings us here to go on.
remake=
if is_ready; then
    if [ "$(identity .venv/bin/python)" = "$(identity "$python")" ]; then
        [ -n "$quiet" ] || done_line
        exit 0
    fi
    remake=" (it was made from another Python)"
fi

# ---- compilers and disk ---------------------------------------------------------------------------------------
for compiler in cc "${CXX:-c++}"; do
    command -v "$compiler" >/dev/null || refuse "no $compiler, and libtorch's C++ glue is compiled and linked here.
Debian and Ubuntu: apt install g++. Fedora: dnf install gcc-c++."
done
minor=$(sed -n 's/^rust-version = "1\.\([0-9]*\).*/\1/p' Cargo.toml)
command -v cargo >/dev/null || refuse "no cargo. Install Rust by rustup: https://rustup.rs"
# rustup fetches the version that rust-toolchain.toml names at this first use, and says so itself.
rust=$(cargo --version) || refuse "cargo does not run (its own words are above)."
rust_minor=$(say "$rust" | sed -n 's/^cargo 1\.\([0-9]*\).*/\1/p')
[ "${rust_minor:-0}" -ge "$minor" ] || refuse "this is $rust; needed is 1.$minor. Install Rust by rustup,
which follows rust-toolchain.toml: https://rustup.rs"

# Megabytes, measured: .venv 1330, target/ 3000, the wheels while they are installed 580, the crates 300; and pip
# keeps the wheels.
need=6000
free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1024) }')
have=$(du -skc .venv "${CARGO_TARGET_DIR:-target}" 2>/dev/null | awk 'END { print int($1 / 1024) }')
[ $((free + have)) -ge $need ] || refuse "$root has $free MB free; set-up and build
need $((need - have)) MB. Free some, or move the checkout."

# ---- .venv ----------------------------------------------------------------------------------------------------
say "Making .venv$remake from $base ($version): 0.6 GB to fetch, 1.4 GB on disk." \
    "About a minute and the download."
# Extras (imago envs install) go with the old .venv: the first package of each file tells whether it was there.
extras=
for file in envs/extras/*.txt; do
    lead=$(sed -n 's/[[:space:]]*#.*//; /^$/d; s/==/-/; y/ABCDEFGHIJKLMNOPQRSTUVWXYZ-/abcdefghijklmnopqrstuvwxyz_/; p; q' "$file")
    for found in .venv/lib/python3.11/site-packages/*.dist-info; do
        case $(say "${found##*/}" | tr 'A-Z-' 'a-z_') in "$lead".dist_info) extras="$extras $(basename "$file" .txt)" ;; esac
    done
done
[ -L .venv ] || rm -f .venv/.ready # through a link it would be the stamp of somebody else
rm -rf .venv
"$base" -m venv .venv || fail "python -m venv failed."
# What pip unpacks goes to this disk, which was checked, and not to a small /tmp.
mkdir .venv/tmp
export TMPDIR="$root/.venv/tmp"
install() { .venv/bin/python -m pip install --quiet "$@" || fail "pip failed (its own words are above)."; }
install -r envs/requirements.txt
# --no-deps: torch asks for GPU libraries (see the file) and for a later setuptools. Without them `pip check`
# complains, and so would pip when it installs anything after torch: therefore this comes last.
install --no-deps -r envs/requirements-libtorch.txt
rm -rf .venv/tmp
ln -s lib/python3.11/site-packages/torch .venv/libtorch
[ -e .venv/libtorch/lib/libtorch_cpu.so ] || fail "PyTorch's wheel has no lib/libtorch_cpu.so."
# .cargo/rpath-cc links to libpython through this, so that programs follow when .venv is made from another Python.
# Links to libpython alone: nothing else in that directory may take the place of the system's libraries.
mkdir .venv/libpython
ln -s "$libdir"/libpython3.11.so* .venv/libpython/
say "$wanted" >.venv/.ready
[ -z "$extras" ] || say "The extras that the old .venv had are gone with it: imago envs install$extras"
done_line
