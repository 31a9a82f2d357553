# shellcheck shell=sh
# For `enroot start --rc`, in place of the image's entrypoint: enroot has no option for the folder a command runs in.
cd "${STEP_FOLDER:-/}" && exec "$@"
