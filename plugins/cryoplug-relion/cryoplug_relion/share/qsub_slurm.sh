#!/bin/bash
# Queue script for RELION (tab Running: "Submit to queue?" Yes; "Standard submission script": this file).
# RELION fills in the words in XXX. Start RELION in the environment of cryoplug, or activate it here.
#SBATCH --job-name=XXXnameXXX
#SBATCH --partition=XXXqueueXXX
#SBATCH --ntasks=XXXmpinodesXXX
#SBATCH --cpus-per-task=XXXthreadsXXX
#SBATCH --gres=gpu:1
#SBATCH --output=XXXoutfileXXX
#SBATCH --error=XXXerrfileXXX
#SBATCH --open-mode=append
# At the time limit SIGTERM comes a minute earlier, and the job can still tell RELION.
#SBATCH --signal=B:TERM@60

# exec: signals of Slurm reach cryoplug, and not a shell that keeps them to itself.
exec XXXcommandXXX
