# Sourced by the other scripts: where things lie, how Debian packages are installed, and the stand-in for the base image.
# Everything is kept under $PLUMBLINE_ENGINES_DIR; deleting that folder (after `stop`) undoes all but the Debian packages.
set -euo pipefail
ENGINES_DIR=${PLUMBLINE_ENGINES_DIR:-/var/tmp/plumbline-engines}
BASE_TAR=$ENGINES_DIR/python-3.11-slim.tar
install -d -m 755 "$ENGINES_DIR"

# install PACKAGE...: quietly, without starting any service
install_packages() {
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod +x /usr/sbin/policy-rc.d
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    apt-get -o DPkg::Lock::Timeout=600 -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y -qq --no-install-recommends "$@" >/dev/null
}

# alive PID_FILE: is the daemon of this file running?
alive() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }

# wait_for SECONDS COMMAND...: until the command succeeds
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || { echo "timeout: $*" >&2; return 1; }
        sleep 0.25
    done
}

# A stand-in for the public image python:3.11-slim, for machines that reach no image registry: the same Debian release and
# the same Python, made from the machine's own Debian mirror. /plumbline-ci marks it, so that tests can prove where they ran.
make_base_tar() {
    [ ! -s "$BASE_TAR" ] || return 0
    command -v mmdebstrap >/dev/null || install_packages mmdebstrap
    local mirror security
    mirror=$(repository bookworm) security=$(repository bookworm-security)
    # certificates of the site (a proxy that ends TLS) go in, or pip fails in `RUN pip install`
    mmdebstrap --quiet --variant=minbase --mode=root --include=bash,ca-certificates,python3,python3-venv,python3-pip \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --aptopt='Acquire::Languages "none"' --aptopt='Acquire::Retries "3"' \
        --customize-hook='for c in /usr/local/share/ca-certificates/*.crt; do [ ! -e "$c" ] || cp "$c" "$1/usr/local/share/ca-certificates/"; done; chroot "$1" update-ca-certificates >/dev/null' \
        --customize-hook='rm -f "$1"/usr/lib/python3.*/EXTERNALLY-MANAGED; for p in python python3; do ln -sf /usr/bin/python3 "$1/usr/local/bin/$p"; done; ln -sf /usr/bin/pip3 "$1/usr/local/bin/pip"; touch "$1/plumbline-ci"' \
        bookworm "$BASE_TAR.part.tar" "deb $mirror bookworm main" "deb $mirror bookworm-updates main" "deb $security bookworm-security main"
    mv "$BASE_TAR.part.tar" "$BASE_TAR"
}

# the address of a Debian release on this machine's mirror
repository() {
    apt-get indextargets --format '$(REPO_URI) $(RELEASE)' | awk -v release="$1" '$2 == release { sub(/\/$/, "", $1); print $1; exit }'
}

# import_base ENGINE IMAGE: under the name that our Dockerfiles ask for
import_base() {
    if "$1" image inspect "$2" >/dev/null 2>&1; then return 0; fi
    make_base_tar
    local bundle=/etc/ssl/certs/ca-certificates.crt
    "$1" import --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' \
        --change "ENV SSL_CERT_FILE=$bundle" --change "ENV PIP_CERT=$bundle" --change "ENV REQUESTS_CA_BUNDLE=$bundle" \
        --change 'CMD ["python3"]' "$BASE_TAR" "$2" >/dev/null
}

# mount_image IMAGE FOLDER: what podman built, as a writable folder, without a copy of its gigabytes (unmount_images undoes it)
mount_image() {
    local lower # its layers themselves: singularity puts one overlay more on top, and the kernel stacks two at most
    lower=$(podman image inspect --format '{{.GraphDriver.Data.UpperDir}}:{{.GraphDriver.Data.LowerDir}}' "$1")
    if [ "$(cat "$2.lower" 2>/dev/null)" = "$lower" ] && mountpoint -q "$2"; then return 0; fi
    ! mountpoint -q "$2" || umount "$2"
    rm -rf "$2.upper" "$2.work"
    mkdir -p "$2" "$2.upper" "$2.work"
    mount -t overlay overlay -o "lowerdir=$lower,upperdir=$2.upper,workdir=$2.work" "$2"
    echo "$lower" >"$2.lower"
}

# image_variables IMAGE: its environment variables, NAME=value a line
image_variables() { podman image inspect --format '{{range .Config.Env}}{{println .}}{{end}}' "$1" | sed '/^$/d'; }

# unmount_images FOLDER: all that mount_image mounted in it
unmount_images() {
    local file
    for file in "$1"/*.lower; do
        [ -e "$file" ] || continue
        ! mountpoint -q "${file%.lower}" || umount "${file%.lower}"
        rm -rf "${file%.lower}" "${file%.lower}".*
    done
}
