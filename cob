#!/bin/sh
# The bootstrap: makes sure of the tools that building takes, builds the `cob` command and hands over to it.
# When everything is there it only compares file times.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
export COB_ROOT="$root"
bin="$root/target/host/debug/cob"
stamp="$root/target/host/stamp"
tools="$root/target/host/tools"

say() { echo "cob: $*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

# What is missing, as Debian packages.
missing() {
    have cargo || echo cargo-web rustc-web
    have cc || echo gcc libc6-dev
    have strip || echo binutils
    have ld.lld || echo lld
    have qemu-system-x86_64 || echo qemu-system-x86
    have qemu-system-aarch64 || echo qemu-system-arm
    have qemu-system-riscv64 || echo qemu-system-misc
    have aarch64-linux-gnu-gcc || echo gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    have riscv64-linux-gnu-gcc || echo gcc-riscv64-linux-gnu libc6-dev-riscv64-cross
    have setpriv || echo util-linux
    have git || echo git
    # Cargo fetches crates over TLS.
    ! have apt-get || [ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
    if ! kernel_rust; then
        [ -x /usr/bin/cargo ] && [ -x /usr/bin/rustc ] || echo rustc-web cargo-web
        [ -d /usr/lib/rustlib/src/rust/library/core ] || echo rust-web-src
    fi
    # What `cob test` checks the sources with; where Debian's Rust builds the kernel, its clippy checks it.
    have cargo-fmt || echo rustfmt-web
    [ ! -d /usr/lib/rustlib/src/rust/library/core ] && kernel_rust || [ -x /usr/bin/cargo-clippy ] || echo rust-web-clippy
}

# Whether some Rust can build for bare metal: Debian's with its sources, or rustup's with the target.
kernel_rust() {
    { [ -x /usr/bin/cargo ] && [ -x /usr/bin/rustc ] && [ -d /usr/lib/rustlib/src/rust/library/core ]; } && return 0
    have rustc || return 1
    [ -d "$(rustc --print target-libdir --target x86_64-unknown-none 2>/dev/null)" ]
}

install() {
    if ! kernel_rust && have rustup; then
        say "adding the Rust target x86_64-unknown-none with rustup"
        rustup target add x86_64-unknown-none >&2 || say "rustup cannot add it; trying Debian's packages"
    fi
    want=$(missing | tr ' ' '\n' | sort -u | tr '\n' ' ')
    [ -n "${want% }" ] || return 0
    if ! have apt-get; then
        say "please install (names of Debian's packages): $want"
        exit 1
    fi
    sudo=
    if [ "$(id -u)" != 0 ]; then
        # Without a terminal nothing may ask for a password.
        if [ -t 0 ] && [ -t 2 ]; then sudo=sudo; else sudo="sudo -n"; fi
        if ! have sudo || ! $sudo true; then
            say "please run as root: apt-get install $want"
            exit 1
        fi
    fi
    say "installing $want"
    if ! { $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q update >&2 &&
        $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends $want >&2; } </dev/null; then
        say "that failed; please install: $want"
        exit 1
    fi
}

# Sources of the command, newer than what was built?
stale() {
    [ -x "$bin" ] && [ -f "$stamp" ] || return 0
    [ -n "$(find "$root/host" "$root/lib" "$root/abi" "$root/Cargo.toml" "$root/Cargo.lock" -newer "$stamp" -type f -print -quit)" ]
}

if [ ! -f "$tools" ]; then
    install
    # `doctor` looks again, and a tool that goes missing is named by what needs it.
    mkdir -p "$root/target/host"
    : >"$tools"
fi

if stale; then
    new="$stamp.$$"
    mkdir -p "$root/target/host"
    : >"$new"
    if ! (cd "$root" && cargo build -q --locked -p cob-host --target-dir "$root/target/host") >&2; then
        rm -f "$new" "$tools"
        say "building the cob command failed"
        exit 1
    fi
    mv "$new" "$stamp"
fi

exec "$bin" "$@"
