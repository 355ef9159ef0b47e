"""Write the files beside this script with the tools that people use: one small sweep, planted, in each one's form.

``python make.py FOLDER``, in an environment that has them all. README.md says which versions wrote what is here.
"""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

SIZES, RATES, SEEDS, BEST = (8, 32), (0.1, 0.2, 0.4), (0, 1), {8: 0.1, 32: 0.2}


def runs():
    """Yield the parameters of each run and its scores after three epochs, of which the second is the best."""
    for size in SIZES:
        for rate in RATES:
            for seed in SEEDS:
                last = 0.95 - 0.01 * math.log2(rate / BEST[size]) ** 2 + 0.001 * seed
                scores = [round(last - 0.3, 4), round(last + 0.01, 4), round(last, 4)]
                yield {"bs": size, "lr": rate, "seed": seed}, scores


def pandas_tables(folder):
    import pandas as pd

    frame = pd.DataFrame([{f"config.{k}": v for k, v in p.items()} | {"metrics.val_acc": c[-1]} for p, c in runs()])
    frame.to_parquet(folder / "pandas.parquet")
    frame.to_csv(folder / "pandas.csv")
    frame.to_csv(folder / "pandas-german.csv", sep=";", decimal=",", index=False)
    frame.to_json(folder / "pandas.jsonl", orient="records", lines=True)
    frame.to_json(folder / "pandas-records.json", orient="records")
    frame.to_json(folder / "pandas-columns.json")
    rows = [{"config": p, "val": {"acc": c[-1]}, "state": "finished"} for p, c in runs()]
    (folder / "nested.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def optuna_storages(folder):
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    def suggest(trial):
        trial.suggest_categorical("bs", [8, 32, 128])
        trial.suggest_float("lr", 1e-3, 10, log=True)

    storages = {
        "sqlite": f"sqlite:///{folder / 'optuna.db'}",
        "journal": JournalStorage(JournalFileBackend(str(folder / "optuna.log"))),
    }
    for kind, storage in storages.items():
        study = optuna.create_study(storage=storage, study_name="sweep", direction="maximize")
        for parameters, curve in runs():
            study.enqueue_trial({k: parameters[k] for k in ("bs", "lr")}, user_attrs={"seed": parameters["seed"]})
            trial = study.ask()
            suggest(trial)
            for step, value in enumerate(curve):
                trial.report(value, step)
            study.tell(trial, curve[-1])
        for state in (optuna.trial.TrialState.PRUNED, optuna.trial.TrialState.FAIL):
            trial = study.ask()
            suggest(trial)
            study.tell(trial, state=state)
        suggest(study.ask())  # and is running still
        study.trials_dataframe().to_csv(folder / f"optuna-{kind}.csv")


def mlflow_stores(folder):
    import mlflow

    for kind, uri in {"sqlite": f"sqlite:///{folder / 'mlflow.db'}", "folder": (folder / "mlruns").as_uri()}.items():
        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment(experiment_id=mlflow.create_experiment("sweep", (folder / "artifacts").as_uri()))
        for parameters, curve in runs():
            with mlflow.start_run():
                mlflow.log_params(parameters)
                for step, value in enumerate(curve):
                    mlflow.log_metrics({"val/acc": value, "train/loss": 1 - value}, step=step)
        with mlflow.start_run():
            mlflow.log_params({"bs": 8, "lr": 0.8, "seed": 0})
            mlflow.log_metric("val/acc", math.nan)
            mlflow.end_run("FAILED")
        client = mlflow.MlflowClient()
        running = client.create_run(mlflow.get_experiment_by_name("sweep").experiment_id).info.run_id
        client.log_param(running, "bs", 8)
        mlflow.search_runs().to_csv(folder / f"mlflow-{kind}.csv")


def tensorboard_folders(folder):
    from tensorboardX import SummaryWriter

    for parameters, curve in runs():
        with SummaryWriter(str(folder / "tensorboard" / "-".join(f"{k}{v}" for k, v in parameters.items()))) as writer:
            for step, value in enumerate(curve):
                writer.add_scalar("val/acc", value, step)
                writer.add_scalar("train/loss", 1 - value, step)
            writer.add_hparams(parameters, {"hparam/val_acc": curve[-1]})  # into a folder named by the time
        name = ",".join(f"{key}={value}" for key, value in parameters.items())
        for split, less in (("train", 0.0), ("validation", 0.01)):  # as Keras does
            with SummaryWriter(str(folder / "tensorboard-names" / name / split)) as writer:
                for step, value in enumerate(curve):
                    writer.add_scalar("epoch_accuracy", value - less, step)


HYDRA_APP = """
import json, sys
from pathlib import Path
import hydra
from hydra.core.hydra_config import HydraConfig
sys.path.insert(0, {here!r})
from make import runs

@hydra.main(version_base=None, config_path=None)
def main(cfg):
    if cfg.optimizer.lr > 0.5:
        raise RuntimeError("diverged")
    asked = dict(bs=cfg.bs, lr=cfg.optimizer.lr, seed=cfg.seed)
    (curve,) = [curve for parameters, curve in runs() if parameters == asked]
    out = Path(HydraConfig.get().runtime.output_dir)
    lines = [json.dumps(dict(val=dict(acc=value), epoch=epoch)) for epoch, value in enumerate(curve)]
    (out / "metrics.jsonl").write_text("\\n".join(lines))

main()
"""


def hydra_multirun(folder):
    app = folder / "app.py"
    app.write_text(HYDRA_APP.format(here=str(Path(__file__).parent)))
    swept = ["+bs=8,32", "+optimizer.lr=0.1,0.2,0.4,0.8", "+seed=0,1"]
    subprocess.run([sys.executable, app, "--multirun", *swept, f"hydra.sweep.dir={folder / 'multirun'}"], check=False)
    app.unlink()


def wandb_tables(folder):
    """Write what W&B's documentation makes of ``Api().runs``, from runs that are offline: it takes no account."""
    import pandas as pd
    import wandb

    rows = []
    for parameters, curve in runs():
        run = wandb.init(project="sweep", config=parameters, dir=folder, settings={"silent": True})
        for value in curve:
            run.log({"val/acc": value})
        rows.append({"summary": dict(run.summary), "config": dict(run.config), "name": f"run-{len(rows)}"})
        run.finish()
    pd.DataFrame(rows).to_csv(folder / "wandb-api.csv")
    shutil.rmtree(folder / "wandb")


# Of many files, or large ones: they are kept as archives.
PACKED = {
    "optuna": ("optuna.db", "optuna.log"),
    "mlflow": ("mlflow.db", "mlruns"),
    "tensorboard": ("tensorboard", "tensorboard-names"),
    "hydra": ("multirun",),
}

if __name__ == "__main__":
    os.environ |= {"WANDB_MODE": "offline", "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_FILE_STORE": "true"}
    into = Path(sys.argv[1]).resolve()
    into.mkdir(parents=True)
    for make in (pandas_tables, optuna_storages, mlflow_stores, tensorboard_folders, hydra_multirun, wandb_tables):
        make(into)
    for tool, names in PACKED.items():
        (into / "packed").mkdir()
        for name in names:
            shutil.move(into / name, into / "packed" / name)
        shutil.make_archive(str(into / tool), "zip", into / "packed")
        shutil.rmtree(into / "packed")
