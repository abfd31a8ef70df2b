"""What a simulation does not show, in plain words and depending on what it measured."""

from __future__ import annotations

from cli.results import Results


def limits_of(results: Results) -> list[str]:
    """The limits a reader must know before quoting the report, the gravest first."""
    kinds = {kind for site in results.sites for kind, number in site.provenance.items() if number}
    limits = [
        "It is a simulation. It shows how the method behaves on these data, not that a real hospital's "
        "contribution was removed anywhere."
    ]
    if kinds == {"phantom"}:
        limits.append(
            "The images are phantoms: simple simulated objects. Decibels measured on them say nothing about "
            "patients, lesions or diagnostic quality."
        )
    elif "phantom" in kinds or "retrospective" in kinds:
        limits.append(
            "Not all k-space was acquired by a scanner: phantoms and k-space computed back from magnitude "
            "images have no true phase, coil or motion errors, and flatter every reconstructor."
        )
    if not results.withdrawn:
        return [*limits, "Nobody withdrew, so nothing here is about forgetting."]
    limits.append(
        "The result is empirical. The unlearned model behaves like the retrained one in these measurements, "
        "or does not; there is no mathematical guarantee, and the weights alone prove nothing."
    )
    if any(site.patients_left is not None for site in results.withdrawn):
        limits.append(
            "Where only patients left, forget-train are those patients, forget-test the test patients of "
            "their hospital, which stayed, and retain-test those of all other hospitals. What some patients "
            "taught the model the others of their hospital teach as well, so there is less to see."
        )
    if results.noise_floor is None:
        limits.append(
            "One seed, one oracle: two retrainings that differ only in their seed differ as well (the noise "
            "floor), and that was not measured here. Small gaps may be chance."
        )
    else:
        floor = results.noise_floor
        limits.append(
            "Two oracles that differ only in their seed are "
            f"{abs(floor.retain_test):.2f}, {abs(floor.forget_test):.2f} and {abs(floor.forget_train):.2f} "
            "dB apart (retain-test, forget-test, forget-train): gaps of that size may be chance."
        )
    if not results.relearn_gap:
        limits.append("Relearning was not measured, so knowledge may be hidden rather than gone.")
    limits += [
        "Accuracies are means over volumes. Whether a single patient can still be recognised (membership "
        "inference) is another question, which they cannot answer.",
        "Copies of earlier models that have left the consortium, and whatever was learned from them "
        "elsewhere, are not reached by any of this.",
    ]
    return limits
