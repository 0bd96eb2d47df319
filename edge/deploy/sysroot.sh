#!/bin/sh
# sysroot.sh DIR: what a cross build for arm64 needs, unpacked into DIR from Debian's own packages. Nothing is installed, no
# architecture is added to this system's dpkg, no root is needed.
#   DIR/sysroot   arm64: C library, GStreamer's headers and plugins to link against and to run under qemu
#   DIR/host      this machine's: Debian's rustc with the standard library for arm64, which has to be of the same version
# Safe to run twice: it does nothing when the list of packages is the one that is there.
set -eu

dir=$1
say() { printf 'reid: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

[ "$(dpkg --print-architecture)" = amd64 ] || die "this script crosses from amd64 to arm64; on an arm64 machine build as on any other: cargo build --release -p reid-edge"
# shellcheck disable=SC1091  # ID and VERSION_CODENAME
. /etc/os-release
[ "${ID:-}" = debian ] || die "this is ${PRETTY_NAME:-no Debian}: cross-building takes Debian's packages, so run it on Debian 12 or in a container of it"

# To link: the C library and GStreamer's headers. To run under qemu: the plugins that README.md asks for.
target_packages="libc6-dev libgcc-12-dev libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev gstreamer1.0-plugins-base \
gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-libav"
# rustc-web is Debian's rustc for browsers: the newest one that a stable release carries.
host_packages="rustc-web libstd-rust-web-dev"

wanted="3 ${VERSION_CODENAME:-} $target_packages / $host_packages"
[ -f "$dir/.complete" ] && [ "$(cat "$dir/.complete")" = "$wanted" ] && exit 0
rm -rf "$dir.partial"
mkdir -p "$dir.partial"
work=$(cd "$dir.partial" && pwd -P)
final=${work%.partial}

# This system's own Debian sources, without anyone else's: those may not know arm64.
sources=$work/apt/sources.list.d
mkdir -p "$sources"
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
  [ -f "$file" ] || continue
  grep -E '^[[:space:]]*deb[[:space:]].*/debian(-security)?/?[[:space:]]' "$file" >"$sources/$(basename "$file" .list)-copy.list" || true
done
for file in /etc/apt/sources.list.d/*.sources; do
  [ -f "$file" ] || continue
  awk -v RS= -v ORS='\n\n' '/URIs:[^\n]*\/debian(-security)?\/?(\n|$)/ && !/Enabled: *no/' "$file" >"$sources/$(basename "$file")"
done
find "$sources" -empty -type f -delete
[ -n "$(ls "$sources")" ] || die "no Debian source found in /etc/apt/sources.list or /etc/apt/sources.list.d"

# apt_in ARCH get|cache ARGUMENTS...: apt-get or apt-cache with a state of its own.
apt_in() {
  arch=$1
  tool=apt-$2
  shift 2
  state=$work/apt/$arch
  mkdir -p "$state/lists/partial" "$state/archives/partial"
  status=$state/status
  if [ "$arch" = amd64 ]; then status=/var/lib/dpkg/status; else : >>"$status"; fi
  "$tool" -qq \
    -o APT::Architecture="$arch" -o APT::Architectures="$arch" -o Debug::NoLocking=1 -o APT::Sandbox::User= \
    -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$sources" -o Dir::State="$state" \
    -o Dir::State::Lists="$state/lists" -o Dir::State::Status="$status" -o Dir::Cache="$state" \
    -o Dir::Cache::Archives="$state/archives" -o APT::Install-Recommends=false -o APT::Get::Assume-Yes=true "$@"
}

# unpack FOLDER ROOT: every package of FOLDER. /lib, /bin and /sbin are links, as on every merged system.
unpack() {
  mkdir -p "$2/usr/lib" "$2/usr/bin" "$2/usr/sbin"
  for merged in lib bin sbin; do ln -sfn "usr/$merged" "$2/$merged"; done
  for deb in "$1"/*.deb; do
    dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink --no-same-owner -C "$2"
  done
  # Links to absolute paths mean files below this root. Left as they are, libm.so would point to nothing and the linker would take
  # libm.a, whose objects use a private symbol of one version of glibc: the program would run with no other.
  find "$2" -type l -lname '/*' | while read -r link; do
    to=$(realpath -m --relative-to="$(dirname "$link")" "$2$(readlink "$link")")
    ln -sfn "$to" "$link"
  done
}

# remember FOLDER ROOT: what dpkg-shlibdeps asks a dpkg database, so that a package made of the cross build depends on the
# right versions: which package owns a file (by its path on this machine) and since when it has which symbols.
remember() {
  database=$2/var/lib/dpkg
  mkdir -p "$database/info"
  for deb in "$1"/*.deb; do
    name=$(dpkg-deb -f "$deb" Package)
    { dpkg-deb -f "$deb" | sed '1a Status: install ok installed'; echo; } >>"$database/status"
    rm -rf "$work/control"
    dpkg-deb -e "$deb" "$work/control"
    for file in symbols shlibs; do
      [ ! -f "$work/control/$file" ] || cp "$work/control/$file" "$database/info/$name.$file"
    done
    dpkg-deb --fsys-tarfile "$deb" | tar -t |
      sed -e 's|^\./|/|' -e 's|/$||' -e 's|^/lib/|/usr/lib/|' -e "s|^|$final/sysroot|" >"$database/info/$name.list"
  done
  rm -rf "$work/control"
}

say "fetching Debian ${VERSION_CODENAME:-} packages for arm64 into $dir (nothing is installed): $target_packages"
apt_in arm64 get update
# shellcheck disable=SC2086  # lists of packages
apt_in arm64 get install --download-only $target_packages
unpack "$work/apt/arm64/archives" "$work/sysroot"
remember "$work/apt/arm64/archives" "$work/sysroot"

say "fetching Debian's Rust compiler for this machine into $dir (not installed): $host_packages"
apt_in amd64 get update
# The package with the compiler's own libraries has a version in its name.
own=$(apt_in amd64 cache show libstd-rust-web-dev | sed -n 's/^Depends:.*\(libstd-rust-web-[0-9][0-9.]*\).*/\1/p' | head -n 1)
archives=$work/apt/amd64/archives
# shellcheck disable=SC2086
(cd "$archives" && apt_in amd64 get download $host_packages $own)
# What they need and this machine lacks.
# shellcheck disable=SC2086
apt_in amd64 get install --download-only $host_packages
unpack "$archives" "$work/host"

# The standard library for arm64, of exactly that version.
version=$(for deb in "$archives"/libstd-rust-web-dev_*.deb; do dpkg-deb -f "$deb" Version; done)
mkdir -p "$work/apt/std"
(cd "$work/apt/std" && apt_in arm64 get download "libstd-rust-web-dev=$version") ||
  die "Debian has no libstd-rust-web-dev $version for arm64, and the standard library must be of the compiler's version"
unpack "$work/apt/std" "$work/std"
mv "$work/std/usr/lib/rustlib/aarch64-unknown-linux-gnu" "$work/host/usr/lib/rustlib/"

# The compiler finds its standard libraries beside itself, but its own shared ones only if told.
cat >"$work/host/rustc" <<'TEXT'
#!/bin/sh
here=$(dirname "$0")
LD_LIBRARY_PATH="$here/usr/lib/x86_64-linux-gnu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" exec "$here/usr/bin/rustc" "$@"
TEXT
chmod 755 "$work/host/rustc"
rm -rf "$work/std" "$work/apt"
"$work/host/rustc" --version >/dev/null || die "Debian's rustc does not run here"
echo "$wanted" >"$work/.complete"
rm -rf "$dir"
mv "$work" "$dir"
