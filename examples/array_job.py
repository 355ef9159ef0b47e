"""Train one study with many workers: an array job under Slurm, or processes of this machine.

    python array_job.py FOLDER [WORKERS] [CLUSTER]

CLUSTER is "slurm" or "local"; without it, submitit looks for Slurm. All machines must see FOLDER.
"""

import sys

import submitit

import sgdscope as sg


def work(folder: str) -> int:
    """Train what no other worker trains, and return how many trials this worker trained."""
    sg.configure_jax()  # before JAX starts: all cores, and compiled programs are kept
    study = sg.Study(
        name="array-job",
        workloads=sg.workloads.digits(),
        batch_sizes=(64, 256),
        learning_rates=(0.125, 0.25),
        budgets=sg.Epochs(2),
        seeds=3,
    )
    ran = sg.run(study, folder).ran
    return ran.trained if ran else 0


if __name__ == "__main__":
    folder, workers, cluster = [*sys.argv[1:], *["4", ""][len(sys.argv) - 2 :]]
    executor = submitit.AutoExecutor(folder=f"{folder}-logs", cluster=cluster or None)
    executor.update_parameters(name="sgdscope", cpus_per_task=8, timeout_min=240)
    jobs = executor.map_array(work, [folder] * int(workers))
    print("trained by each worker:", [job.result() for job in jobs])
    sg.load(folder).save_report(f"{folder}/report.html")
