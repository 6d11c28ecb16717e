#!/usr/bin/env bash
# A Cloud TPU slice through queued resources, and one command on all of its hosts.
#
#   launch/tpu_vm.sh create|wait|setup|status|stop|delete NAME
#   launch/tpu_vm.sh run|resume NAME -- COMMAND ...
#
# Settings are environment variables: PROJECT and ZONE; ACCELERATOR (v6e-16), RUNTIME_VERSION
# (v2-alpha-tpuv6e), SPOT=1 or RESERVED=1 (neither: on demand), POLL (30 seconds).
# DRY_RUN=1 prints every command and runs none. launch/README.md goes through it step by step.
set -euo pipefail

usage() {
  sed -n '4,5s/^#  *//p' "$0" >&2
  exit 2
}

# Runs a command, or prints it so that a shell would read it back the same.
execute() {
  if [[ -z ${DRY_RUN:-} ]]; then
    "$@"
  else
    printf '%q ' "$@" >&3
    echo >&3
  fi
}

tpus() {
  execute gcloud compute tpus "$@" "--project=$PROJECT" "--zone=$ZONE"
}

on_all_workers() {
  # Without these options ssh waits for ever for a host that was taken away.
  tpus tpu-vm ssh "$name" --worker=all --ssh-flag=-oConnectTimeout=20 \
    --ssh-flag=-oServerAliveInterval=30 --ssh-flag=-oServerAliveCountMax=4 "--command=$1"
}

create() {
  local flags=("--node-id=$name" "--accelerator-type=${ACCELERATOR:-v6e-16}"
    "--runtime-version=${RUNTIME_VERSION:-v2-alpha-tpuv6e}")
  if [[ -n ${SPOT:-} ]]; then flags+=(--spot); fi
  if [[ -n ${RESERVED:-} ]]; then flags+=(--reserved); fi
  tpus queued-resources create "$name" "${flags[@]}"
}

state() {
  tpus queued-resources describe "$name" '--format=value(state.state)'
}

# Until the slice is there; status 1 where it will never be.
wait_until_active() {
  local now seen=''
  while true; do
    now=$(state)
    if [[ -n ${DRY_RUN:-} ]]; then return; fi
    if [[ $now != "$seen" ]]; then echo "$name: $now" >&2; fi
    seen=$now
    case $now in
      ACTIVE) return ;;
      FAILED | SUSPENDING | SUSPENDED | DELETING | '') return 1 ;;
    esac
    sleep "$POLL"
  done
}

# The last commit on every host, in ~/linknet_jax, with its own Python in ~/venv: the image's
# Python may be older than 3.11.
setup() {
  if ! git -C "$root" diff --quiet HEAD; then
    echo "note: changes that are not committed are not copied" >&2
  fi
  execute git -C "$root" archive --format=tar.gz "--output=$folder/linknet_jax.tar.gz" HEAD &&
    tpus tpu-vm scp "$folder/linknet_jax.tar.gz" "$name:linknet_jax.tar.gz" --worker=all &&
    on_all_workers "mkdir -p linknet_jax && tar -xzf linknet_jax.tar.gz -C linknet_jax &&
      python3 -m pip install --quiet --user uv &&
      { [ -x venv/bin/python ] || ~/.local/bin/uv venv --seed --python 3.12 venv; } &&
      cd linknet_jax && ../venv/bin/pip install --quiet -e '.[tpu]'"
}

# `exit` keeps the shell alive beside the command: SIGTERM at a host's end kills that shell, so
# that a run which saved and ended with 0 is not taken for one that has finished.
run() {
  local quoted
  printf -v quoted '%q ' "$@"
  on_all_workers "cd linknet_jax && . ../venv/bin/activate && $quoted; exit \$?"
}

# Runs the command; where the slice was taken away, makes it again and runs the command again.
resume() {
  local status
  while true; do
    status=0
    run "$@" || status=$?
    case $(settled_state) in
      ACTIVE) return "$status" ;;
      FAILED) return 1 ;;
      SUSPENDED)
        delete
        create
        ;;
      '') create ;;
    esac
    # Taken away again meanwhile? The next attempt fails, and the state after it says so.
    if wait_until_active; then setup || true; fi
    if [[ -n ${DRY_RUN:-} ]]; then return; fi
  done
}

# The state after the service had time to notice that the slice is gone.
settled_state() {
  local now=SUSPENDING
  while [[ $now == SUSPENDING || $now == DELETING ]]; do
    execute sleep "$POLL"
    now=$(state)
    if [[ -n ${DRY_RUN:-} ]]; then now=SUSPENDED; fi
  done
  echo "$now"
}

# The pattern matches no shell, which would report a failure instead of the run's status.
stop() {
  on_all_workers "pkill -TERM -f '^[^ ]*python[^ ]* .*linknet'"
}

delete() {
  tpus queued-resources delete "$name" --force --quiet
}

[[ $# -ge 2 ]] || usage
action=$1 name=$2
shift 2
if [[ ${1:-} == -- ]]; then shift; fi
case $action in
  run | resume) [[ $# -gt 0 ]] || usage ;;
  create | wait | setup | status | stop | delete) [[ $# -eq 0 ]] || usage ;;
  *) usage ;;
esac
: "${PROJECT:?set PROJECT to the cloud project}" "${ZONE:?set ZONE, for example us-east5-b}"
POLL=${POLL:-30}
if [[ -n ${SPOT:-} && -n ${RESERVED:-} ]]; then
  echo "error: SPOT and RESERVED exclude each other; unset one" >&2
  exit 2
fi
exec 3>&1 # the printed commands, also from within $(...)
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

case $action in
  status) state ;;
  wait) wait_until_active ;;
  *) "$action" "$@" ;;
esac
