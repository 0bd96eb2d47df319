#!/bin/sh
# package.sh [amd64|arm64]: reid-edge_VERSION_ARCH.deb in target/debian/, from what is built. `./reid package` builds and calls it.
# arm64 on an amd64 machine takes the program of `./reid build-arm64`; anything else takes this machine's target/release.
#
# Written with dpkg-deb alone: the recipe is the list of files below and the scripts in edge/deploy/debian/. Needs dpkg-dev (for
# dpkg-shlibdeps), python3 and cargo, and installs nothing. The same commit, program and tools give the same bytes.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
here=$root/edge/deploy
say() { printf 'reid: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

command -v dpkg-shlibdeps >/dev/null 2>&1 || die "dpkg-shlibdeps is missing: apt-get install dpkg-dev"
machine=$(dpkg --print-architecture)
arch=${1:-$machine}
target=${CARGO_TARGET_DIR:-$root/target}
if [ "$arch" = "$machine" ]; then
  program=$target/release/reid-edge
  strip="strip"
  run=
  triple=$(uname -m)-unknown-linux-gnu
  build="./reid package"
elif [ "$arch" = arm64 ]; then
  program=$root/target/arm64/aarch64-unknown-linux-gnu/release/reid-edge
  strip=aarch64-linux-gnu-strip
  run=$here/run-arm64.sh
  triple=aarch64-unknown-linux-gnu
  build="./reid build-arm64"
else
  die "packages are made for $machine (this machine's) and arm64, not for '$arch'"
fi
[ -x "$program" ] || die "$program is missing: $build"

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml")
[ -n "$version" ] || die "Cargo.toml names no version under [workspace.package]"
maintainer="${DEBFULLNAME:-reid} <${DEBEMAIL:-reid-rs@users.noreply.github.com}>"
# The date of the commit, not of today.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH

out=$root/target/debian
stage=$out/stage-$arch
rm -rf "$stage"
mkdir -p "$stage/DEBIAN"
chmod 755 "$stage"
umask 022

# put MODE FROM TO
put() {
  mkdir -p "$stage/$(dirname "$3")"
  install -m "$1" "$2" "$stage/$3"
}

# The program lies beside the folder's ONNX Runtime, where it looks for it; /usr/bin has the link.
put 755 "$program" usr/lib/reid/reid-edge
$strip --remove-section=.comment --remove-section=.note "$stage/usr/lib/reid/reid-edge"
mkdir -p "$stage/usr/bin"
ln -s ../lib/reid/reid-edge "$stage/usr/bin/reid-edge"
put 644 "$here/reid-edge.service" lib/systemd/system/reid-edge.service
put 644 "$here/debian/copyright" usr/share/doc/reid-edge/copyright
put 644 "$root/docs/JETSON.md" usr/share/doc/reid-edge/JETSON.md
put 644 "$here/jetson.conf" usr/share/doc/reid-edge/examples/jetson.conf
command -v cargo >/dev/null 2>&1 || die "cargo is missing: it lists the crates and their licences"
python3 "$here/licences.py" "$triple" >"$out/crates-$arch"
gzip -9n <"$out/crates-$arch" >"$stage/usr/share/doc/reid-edge/crates.gz"
rm "$out/crates-$arch"

# Every key with its meaning, from the program itself; paths that are written to point where the service may write.
mkdir -p "$stage/etc/reid"
example=$stage/etc/reid/edge.toml.example
{
  cat <<'TEXT'
# Copy to edge.toml, name your cameras and models, then:
#   reid-edge check --config /etc/reid/edge.toml && systemctl enable --now reid-edge
# The service writes to /var/lib/reid and /var/cache/reid only.

TEXT
  # shellcheck disable=SC2086  # nothing, or one command
  $run "$program" config --explain | awk '
    /^\[/ { section = $0 }
    section == "[gallery]" && /^# path = / { print "path = \"/var/lib/reid/gallery.db\""; next }
    section == "[runtime]" && /^# cache = / { print "cache = \"/var/cache/reid\""; next }
    { print }'
} >"$example"
grep -q '^path = "/var/lib/reid/gallery.db"$' "$example" || die "config --explain shows no path in [gallery]; the example would write to /etc"
chmod 644 "$example"

# A manual page of what --help says.
manual=$stage/usr/share/man/man1
mkdir -p "$manual"
{
  printf '.TH REID-EDGE 1 "%s" "reid %s"\n' "$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%d)" "$version"
  printf '.SH NAME\nreid-edge \\- live person re-identification on camera streams\n.SH SYNOPSIS\n.B reid-edge\n.I COMMAND\n[OPTIONS]\n'
  printf '.SH COMMANDS\n.nf\n'
  # shellcheck disable=SC2086
  $run "$program" --help | sed -n '/^Commands:/,$p' | sed 's/\\/\\\\/g; s/-/\\-/g; s/^[.'"'"']/\\\&&/'
  printf '.fi\n.PP\nEvery command has its own \\-\\-help.\n'
  printf '.SH FILES\n.TP\n.I /etc/reid/edge.toml\nwhat the service runs; /etc/reid/edge.toml.example explains every key\n'
  printf '.TP\n.I /var/lib/reid\ngallery\n.TP\n.I /var/cache/reid\nengines built for this device\n'
  printf '.TP\n.I /usr/lib/reid\nthe program; ONNX Runtime is looked for here\n'
} | gzip -9n >"$manual/reid-edge.1.gz"

{
  printf 'reid-edge (%s) stable; urgency=medium\n\n  * %s\n\n -- %s  %s\n' "$version" \
    "See the history of the repository." "$maintainer" "$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")"
} | gzip -9n >"$stage/usr/share/doc/reid-edge/changelog.gz"

# Libraries the program is linked to, as packages with the versions that have all symbols used.
mkdir -p "$out/shlibs-$arch/debian"
printf 'Source: reid-edge\nMaintainer: %s\n\nPackage: reid-edge\nArchitecture: %s\nDescription: x\n' "$maintainer" "$arch" \
  >"$out/shlibs-$arch/debian/control"
if [ -n "$run" ]; then
  sysroot=$(cd "$root/.deps/arm64/sysroot" && pwd -P)
  set -- --admindir="$sysroot/var/lib/dpkg" -l"$sysroot/usr/lib/aarch64-linux-gnu"
else
  set --
fi
libraries=$(cd "$out/shlibs-$arch" && DEB_HOST_ARCH=$arch dpkg-shlibdeps -O "$@" -e"$stage/usr/lib/reid/reid-edge") ||
  die "dpkg-shlibdeps does not know a library of $program"
libraries=${libraries#shlibs:Depends=}
rm -rf "$out/shlibs-$arch"

# Plugins are loaded at run time, so no symbol shows them: rtspsrc and qtdemux are in good, parsers of H.264 and H.265 in bad,
# software decoders in libav. A Jetson decodes without libav.
cat >"$stage/DEBIAN/control" <<TEXT
Package: reid-edge
Version: $version
Architecture: $arch
Maintainer: $maintainer
Installed-Size: $(du -k -s --apparent-size --exclude=DEBIAN "$stage" | cut -f1)
Depends: $libraries, adduser, gstreamer1.0-plugins-base, gstreamer1.0-plugins-good, gstreamer1.0-plugins-bad
Recommends: gstreamer1.0-libav
Suggests: gstreamer1.0-vaapi, gstreamer1.0-tools
Section: video
Priority: optional
Homepage: https://github.com/reid-rs/reid
Description: live person re-identification on camera streams
 Recognises people across several cameras: decodes RTSP streams, USB cameras
 and files with GStreamer, detects and tracks people, embeds them with an ONNX
 model, and keeps identities in a local database. Serves a live page and JSON
 events.
 .
 ONNX Runtime is used if its library lies in /usr/lib/reid; it is not part of
 this package. Without it models run in a built-in engine.
TEXT
for script in postinst prerm postrm; do install -m 755 "$here/debian/$script" "$stage/DEBIAN/$script"; done
printf '/etc/reid/edge.toml.example\n' >"$stage/DEBIAN/conffiles"
(cd "$stage" && find . -type f ! -path './DEBIAN/*' -printf '%P\n' | LC_ALL=C sort | xargs md5sum) >"$stage/DEBIAN/md5sums"
find "$stage" -type d -exec chmod 755 {} +

package=$out/reid-edge_${version}_$arch.deb
dpkg-deb --root-owner-group -Zxz -z6 --build "$stage" "$package" >/dev/null
rm -rf "$stage"
say "$package: $(du -k "$package" | cut -f1) KiB; depends on $libraries"
