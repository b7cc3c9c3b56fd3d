# cluster.py: a Dask cluster whose workers are SLURM jobs. Usage: python cluster.py JOBS
import sys

from dask_jobqueue import SLURMCluster

cluster = SLURMCluster(cores=1, processes=1, memory="8GB", walltime="04:00:00")
cluster.scale(jobs=int(sys.argv[1]))
print(cluster.scheduler_address, flush=True)
input("Press Enter to stop the cluster\n")
