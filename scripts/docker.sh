#!/usr/bin/env bash
# Builds the image, starts it on a free port, waits until it is healthy and stops it. TORCH_INDEX: where PyTorch's builds without CUDA are.
set -euo pipefail
cd "$(dirname "$0")/.."
tool=$(command -v docker || command -v podman) || { echo "docker.sh: neither docker nor podman is here; install one of them." >&2; exit 2; }
"$tool" build --build-arg TORCH_INDEX="${TORCH_INDEX:-}" --tag imagebart .
container=$("$tool" run --detach --rm --publish 127.0.0.1::7860 --read-only --tmpfs /tmp --memory 16g --cpus 2 imagebart)
trap '"$tool" stop "$container" > /dev/null' EXIT
address=$("$tool" port "$container" 7860 | head -n 1)
for _ in $(seq 120); do
    if curl --silent --fail --output /dev/null "http://$address/config"; then
        echo "The page answers on http://$address."
        "$tool" history imagebart
        exit 0
    fi
    sleep 1
done
"$tool" logs "$container" >&2
echo "docker.sh: the page did not answer within two minutes." >&2
exit 1
