# shellcheck shell=bash
# For `enroot start --conf`: what a job's step needs to know in its container. enroot hands over nothing by itself, and the
# names differ from step to step.
environ() {
  env | grep -E '^(SLURM_|PMI_|PMI2_|PMIX_|MASTER_|(CUDA|NVIDIA|ROCR)_VISIBLE_DEVICES=)' || true # none of them: not an error
  echo "STEP_FOLDER=$PWD"
  echo "HOME=/tmp" # the home folder is not mounted
}
