"""A whole, plausible results object, with the numbers of three kinds of outcome."""

from __future__ import annotations

import datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cli.report import PictureRow, Pictures
from cli.results import Results

Outcome = Literal["forgets", "remembers", "ruined"]

SITES = (
    ("brain-1", "brain", 6, 2),
    ("brain-2", "brain", 6, 2),
    ("abdomen", "abdomen", 4, 2),
    ("knee", "knee", 5, 2),
)
START = {"brain-1": 17.2, "brain-2": 16.9, "abdomen": 16.1, "knee": 13.4}
ORIGINAL = {"brain-1": 24.81, "brain-2": 24.53, "abdomen": 23.66, "knee": 18.95}
ORACLE = {"brain-1": 25.44, "brain-2": 25.20, "abdomen": 24.32, "knee": 15.06}
UNLEARNED: dict[str, dict[str, float]] = {
    "forgets": {"brain-1": 25.60, "brain-2": 25.49, "abdomen": 24.10, "knee": 14.85},
    "remembers": {"brain-1": 25.12, "brain-2": 24.88, "abdomen": 24.06, "knee": 17.61},
    "ruined": {"brain-1": 19.20, "brain-2": 18.96, "abdomen": 18.34, "knee": 14.80},
}
TRAIN_PSNR = {"original": 20.89, "oracle": 15.31, "forgets": 15.33, "remembers": 19.22, "ruined": 14.94}
RELEARN = {
    "original": (20.9, 21.2, 21.3, 20.9),
    "oracle": (17.9, 18.8, 19.6, 19.6),
    "forgets": (17.4, 18.9, 20.1, 20.2),
    "remembers": (20.5, 20.9, 20.9, 20.8),
    "ruined": (17.6, 18.6, 19.3, 19.4),
}
STEPS = (4, 8, 16, 32)
RECEIVED = datetime.datetime(2025, 3, 3, 9, 0, tzinfo=datetime.UTC)


def build_results(outcome: Outcome = "forgets", **changes: Any) -> Results:
    """Results of the demo consortium (knee leaves after 60 rounds); ``changes`` replace top-level fields."""
    rng = np.random.default_rng(7)
    unlearned = UNLEARNED[outcome]
    accuracy = {
        "original": _accuracy(ORIGINAL, TRAIN_PSNR["original"]),
        "oracle": _accuracy(ORACLE, TRAIN_PSNR["oracle"]),
        "unlearned": _accuracy(unlearned, TRAIN_PSNR[outcome]),
    }
    relearn = {name: dict(zip(STEPS, RELEARN[name], strict=True)) for name in ("original", "oracle")}
    relearn["unlearned"] = dict(zip(STEPS, RELEARN[outcome], strict=True))
    table: dict[str, Any] = {
        "created": datetime.datetime(2025, 3, 3, 10, 12, tzinfo=datetime.UTC),
        "versions": {
            "reconsent": "0.1.0",
            "flwr": "1.39.0",
            "torch": "2.14.1",
            "fastmri": "0.3.0",
            "numpy": "2.4.6",
            "python": "3.11.9",
        },
        "seed": 0,
        "consortium": {"name": "demo", "training": {"rounds": 60, "local-epochs": 2, "learning-rate": 1e-3}},
        "sites": [_site(*site) for site in SITES],
        "rounds": [
            *_line("main", ORIGINAL, rng),
            *_unlearning_rounds(unlearned, rng),
            *_line("oracle", ORACLE, rng),
        ],
        "models": {
            name: {"version": f"v{number:03d}", "sha256": f"{number:064x}", "rounds": number}
            for name, number in (("original", 60), ("oracle", 60), ("unlearned", 66))
        },
        "accuracy": accuracy,
        "volumes": _volumes(accuracy, rng),
        "original_gap": _gap(accuracy, "original"),
        "oracle_gap": {"cached-ascent": _gap(accuracy, "unlearned")},
        "relearn": relearn,
        "relearn_gap": {
            "cached-ascent": {step: relearn["unlearned"][step] - relearn["oracle"][step] for step in STEPS}
        },
        "cost": {
            "cached-ascent": {
                "rounds_fraction": 0.1,
                "client_seconds_fraction": 0.074,
                "bytes_fraction": 0.075,
                "rounds": 6,
                "client_seconds": 212.0,
                "bytes_up": 36_400_000,
                "bytes_down": 36_400_000,
            }
        },
        "unlearning": {
            "method": "cached-ascent",
            "settings": {"alpha": 1.5, "guard": True, "learning-rate": 2e-3, "final-learning-rate": 4e-4},
            "steps": _steps(),
        },
        "timing": {
            "train_seconds": 2865.0,
            "unlearn_seconds": 240.0,
            "oracle_seconds": 2147.0,
            "total_seconds": 5391.0,
        },
        "withdrawals": [
            {
                "sites": ["knee"],
                "at_round": 60,
                "state": "completed",
                "received_at": RECEIVED,
                "deadline": RECEIVED + datetime.timedelta(days=30),
            }
        ],
    }
    return Results.model_validate(table | changes)


def build_pictures(seed: int = 3, size: int = 96) -> Pictures:
    """One slice of each organ: ellipses, and reconstructions that differ by blur, ghosts and noise."""
    rng = np.random.default_rng(seed)
    rows = []
    for site, organ, *_ in SITES[1:]:
        truth = _slice(organ, size, rng)
        strength = {"original": 0.5, "unlearned": 0.35, "oracle": 0.33}
        if site == "knee":
            strength = {"original": 0.5, "unlearned": 1.1, "oracle": 1.05}
        images = {"zero_filled": _degrade(truth, 1.6, rng)}
        images |= {model: _degrade(truth, value, rng) for model, value in strength.items()}
        rows.append(
            PictureRow(
                site=site,
                organ=organ,
                withdrawn=site == "knee",
                volume=f"{site}-patient-07",
                slice=2,
                truth=truth,
                images=images,
            )
        )
    return Pictures(rows=tuple(rows))


def _quality(psnr: float) -> dict[str, float]:
    return {
        "psnr": psnr,
        "ssim": round(1 - 10 ** (-psnr / 26), 4),
        "nmse": round(10 ** (-psnr / 12), 5),
        "hfen": round(10 ** (-psnr / 40), 4),
    }


def _accuracy(psnr: dict[str, float], train: float) -> dict[str, Any]:
    retain = [value for site, value in psnr.items() if site != "knee"]
    return {
        "retain_test": _quality(sum(retain) / len(retain)),
        "forget_test": _quality(psnr["knee"]),
        "forget_train": _quality(train),
        "per_site": {site: _quality(value) for site, value in psnr.items()},
    }


def _gap(accuracy: dict[str, Any], model: str) -> dict[str, float]:
    sets = ("retain_test", "forget_test", "forget_train")
    return {name: accuracy[model][name]["psnr"] - accuracy["oracle"][name]["psnr"] for name in sets}


def _site(name: str, organ: str, train: int, test: int) -> dict[str, Any]:
    gone = {"withdrawn": True, "withdrawn_at_round": 60} if name == "knee" else {}
    return {
        "name": name,
        "organ": organ,
        "provenance": {"phantom": train + test},
        "train_patients": train,
        "test_patients": test,
        "train_slices": 4 * train,
        "test_slices": 4 * test,
        **gone,
    }


def _site_round(site: str, share: float, rng: np.random.Generator) -> dict[str, Any]:
    return {
        "num_examples": {"abdomen": 16, "knee": 20}.get(site, 24),
        "train_loss": float(0.22 + 0.4 * np.exp(-4 * share) + 0.012 * rng.standard_normal()),
        "update_norm": float(1.4 * np.exp(-1.6 * share) + 0.35),
        "seconds": float(11.2 + rng.random()),
        "bytes_up": 2_020_000,
        "bytes_down": 2_020_000,
        "outcome": "ok",
    }


def _line(line: str, final: dict[str, float], rng: np.random.Generator) -> list[dict[str, Any]]:
    rounds: list[dict[str, Any]] = []
    for number in range(1, 61):
        sites = [site for site in final if line == "main" or site != "knee"]
        evaluation = None
        if number % 5 == 0:
            share = 1 - np.exp(-number / 13)
            noise = 0.0 if number == 60 else 0.15
            ceiling = 1 - np.exp(-60 / 13)
            evaluation = {
                site: _quality(
                    float(
                        START[site] + (goal - START[site]) * share / ceiling + noise * rng.standard_normal()
                    )
                )
                for site, goal in final.items()
            }
            for quality in evaluation.values():
                del quality["hfen"]
        record = {"line": line, "kind": "train", "round": number, "evaluation": evaluation}
        record["sites"] = {site: _site_round(site, number / 60, rng) for site in sites}
        rounds.append(record)
    if line == "oracle":
        return rounds
    refused = rounds[22]["sites"]["abdomen"]
    refused |= {"outcome": "refused", "reason": "update norm 31 times its median", "train_loss": None}
    return rounds


def _unlearning_rounds(final: dict[str, float], rng: np.random.Generator) -> list[dict[str, Any]]:
    rounds: list[dict[str, Any]] = []
    dip = {"brain-1": 22.1, "brain-2": 21.9, "abdomen": 21.0, "knee": 14.0}
    for step in range(1, 7):
        share = (step - 1) / 5
        evaluation = {site: _quality(dip[site] + (final[site] - dip[site]) * share) for site in final}
        for quality in evaluation.values():
            del quality["hfen"]
        sites = {s: _site_round(s, 1.0, rng) for s in final if s != "knee"}
        rounds.append(
            {"line": "main", "kind": "retain", "round": 60 + step, "sites": sites, "evaluation": evaluation}
        )
    return rounds


def _steps() -> list[dict[str, Any]]:
    keys = ("round", "alpha", "step_norm", "accepted", "retain_loss_before", "retain_loss_after")
    rows = (
        (61, 3.0, 1.62, False, 0.231, 0.298),
        (62, 1.5, 0.81, True, 0.231, 0.239),
        (63, 1.5, 0.81, True, 0.239, 0.236),
    )
    return [dict(zip(keys, row, strict=True)) for row in rows]


def _volumes(accuracy: dict[str, Any], rng: np.random.Generator) -> list[dict[str, Any]]:
    volumes = []
    for model, values in accuracy.items():
        for site, organ, train, test in SITES:
            sets = [
                ("forget_test" if organ == "knee" else "retain_test", test, values["per_site"][site]["psnr"])
            ]
            if organ == "knee":
                sets.append(("forget_train", train, values["forget_train"]["psnr"]))
            for name, count, mean in sets:
                offsets = rng.standard_normal(count) * 0.8
                for index, offset in enumerate(offsets - offsets.mean()):
                    volumes.append(
                        {
                            "model": model,
                            "set": name,
                            "site": site,
                            "patient": f"{site}-{index:02d}",
                            "volume": f"{site}-{index:02d}-a",
                            **_quality(float(mean + offset)),
                        }
                    )
    return volumes


def _slice(organ: str, size: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    radius = {"brain": (0.85, 0.7), "abdomen": (0.6, 0.9), "knee": (0.95, 0.55)}[organ]
    body = (y / radius[0]) ** 2 + (x / radius[1]) ** 2 < 1
    image = 0.35 * body
    for _ in range(14):
        cy, cx = rng.uniform(-0.5, 0.5, 2)
        a, b = rng.uniform(0.05, 0.25, 2)
        inside = ((y - cy) / a) ** 2 + ((x - cx) / b) ** 2 < 1
        image = image + np.where(inside & body, rng.uniform(-0.2, 0.4), 0.0)
    return np.clip(image, 0, None)


def _degrade(
    truth: npt.NDArray[np.float64], strength: float, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    kspace = np.fft.fftshift(np.fft.fft2(truth))
    columns = np.arange(truth.shape[1])
    keep = (columns % 4 == 0) | (np.abs(columns - truth.shape[1] // 2) < 6)
    folded = np.abs(np.fft.ifft2(np.fft.ifftshift(kspace * keep)))
    mixed = truth + min(strength, 1.6) / 1.6 * (folded - truth)
    return np.asarray(mixed + 0.012 * strength * rng.standard_normal(truth.shape))
