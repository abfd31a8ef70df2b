"""The reference of all methods of unlearning, ``docs/methods.md``, written from the registry."""

from __future__ import annotations

import inspect
import sys

from pydantic.fields import FieldInfo

from reconsent.config import Settings
from strategies import METHODS
from strategies.needs import Needs
from strategies.retain_fine_tuning import RetainFineTuningSettings
from strategies.unlearning_strategy import UnlearningStrategy

_HEAD = """# Methods of unlearning

Every method is a strategy in a file of its own under `strategies/`, with the same interface: it is given
the model trained with everybody and ends with the unlearned one. `--method NAME` of `reconsent simulate` or
`[unlearning] method` chooses it, `--set key=value` or `[unlearning.settings]` sets it; `reconsent methods`
lists the same. All are implemented from the papers, and tested on quadratic losses, where each method's
model can be computed by hand (`tests/strategies`), and from the filed withdrawal to the erased
contributions (`tests/server/test_every_method.py`). Which of them comes how near to the oracle:
[the methods side by side](benchmark.md).

*Gone*: nothing is asked of the site that leaves. *Cooperating*: it still answers, computes its part on its
own data and is barred from everything else; file its withdrawal so (`cooperating = true` in
`[[withdrawals]]`, `reconsent withdraw --cooperating`). A method that needs what is not kept is refused
before anything starts: single updates are kept with `contributions.history-every = 1`, former models and
the contributions up to them with `contributions.anchors = [0.2, 0.4]`; nobody can keep either afterwards.
`retain-ft`, `full-ft`, `retrain`, `rapid-retrain` and `weight-negation` need nothing. Where only
[patients leave](withdrawals.md#patients-of-a-site-that-stays) and their site stays, whatever needs
contributions is refused, and the site has both parts of a cooperating method.

Under differential privacy a site does plain training only, since its accounting knows nothing else: the
cooperating methods, `subtract-distil` and `rapid-retrain` are refused by it.

The *budget* is `unlearning.rounds-fraction` of the rounds trained so far. The *claim* is the strongest that
a certificate may make of the method; what it makes depends on the lineage of the model.

Symbols: θ the model, Δᵤᵗ the update of the withdrawn site u in round t, pᵤ its share of the examples, Δ̄ᵗ
the average of all updates, J the loss, D_f and D_r the data of the withdrawn and of the remaining sites.

Written by `python -m cli.methods_reference > docs/methods.md`; a test compares the two. How `cached-ascent`
came about, and what was measured of it: [method.md](method.md).
"""

_TAIL = """
## Where these differ from the papers, or from their public code

* *Reconstruction has no classes.* Thresholds on accuracy (`pga`) are ratios of the loss; distillation
  (`subtract-distil`) regresses on the teacher's image, without a temperature.
* *The server has no data.* What Wu et al. distil at the server is distilled at the remaining sites on their
  measured k-space, without targets.
* `federaser` takes the length of the stored update, measured from the model it was trained from; public
  code takes the distance to the next aggregate.
* `pga` measures its ball to the untrained model that the consortium began with, where the paper takes the
  mean over ten random ones. Halimi's reference is computed from the cache.
* `ga-l1` has an explicit γ. Without one the ℓ1 norm of a large net is all there is to the loss.
* `nl`: λ is relative to the largest target of a volume; the paper's 1e-5 is in fastMRI's raw units.
* `rollback` to an anchor is without the noise that SIFU's guarantee needs: for nets of millions of
  parameters that noise destroys the model. So no (ε, δ) is claimed.
* `rapid-retrain` keeps each parameter's change within the learning rate: a quotient by the squared gradient
  is unbounded where the gradient vanishes.
* `fast-fedul` takes one scalar for the others' curvature, and lets one kept update stand for the ones
  between where not every update is kept.
* The server adds what both did in a round (`ga-l1-ft`, `nl-ft`), where the paper adds both losses in a
  step.
"""


def page() -> str:
    """The whole page."""
    parts = [_HEAD, _overview()]
    parts += [_section(method) for method in METHODS.values()]
    return "\n".join(parts) + _TAIL


def _overview() -> str:
    rows = ["| method | site | needs | costs | claim |", "| --- | --- | --- | --- | --- |"]
    for name, method in METHODS.items():
        needs = method.needs(method.settings_type())
        site = "cooperating" if needs.cooperation else "gone"
        cells = (f"[`{name}`](#{name})", site, _words(needs), method.cost_line, f"`{method.claim_level}`")
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _section(method: type[UnlearningStrategy]) -> str:
    doc = inspect.cleandoc(method.__doc__ or "")
    lines = [f"## {method.name}", "", f"Source: {method.source}.", ""]
    lines += _markdown(doc)
    fields = method.settings_type.model_fields
    own = {key: field for key, field in fields.items() if not _inherited(method.settings_type, key, field)}
    if own:
        lines += ["", "| setting | default | meaning |", "| --- | --- | --- |"]
        for key, field in own.items():
            lines.append(f"| `{field.alias or key}` | {_shown(field.default)} | {field.description} |")
    if issubclass(method.settings_type, RetainFineTuningSettings) and method.name != "retain-ft":
        lines += ["", "And the settings of [`retain-ft`](#retain-ft) for its rounds."]
    return "\n".join(lines) + "\n"


def _markdown(doc: str) -> list[str]:
    """A docstring as Markdown: deeper lines are equations, and double backticks are code."""
    found: list[str] = []
    for line in doc.replace("``", "`").splitlines():
        equation = line.startswith("    ")
        if equation and found and found[-1] and not found[-1].startswith("    "):
            found.append("")
        found.append(line)
    return found


def _inherited(kind: type[Settings], key: str, field: FieldInfo) -> bool:
    base = RetainFineTuningSettings.model_fields.get(key)
    return kind is not RetainFineTuningSettings and base is not None and base.default == field.default


def _shown(default: object) -> str:
    if default is None:
        return "empty"
    if isinstance(default, float):
        return f"`{default:.4g}`"
    return f"`{str(default).lower()}`"


def _words(needs: Needs) -> str:
    words = []
    if needs.contributions:
        words.append("contributions")
    kinds = {
        "some": "single updates of the site",
        "every": "every update of the site",
        "all": "every update of every site",
    }
    if needs.history in kinds:
        words.append(kinds[needs.history])
    if needs.anchors:
        words.append("anchors")
    if needs.cooperation:
        words.append("the leaving site")
    return ", ".join(words) or "nothing"


if __name__ == "__main__":
    sys.stdout.write(page())
