"""Make a language model sample from the distribution you ask for.

`import diffusecli as diffuse` gives the names in `__all__`, each imported when it is first used (PEP 562): `import diffusecli` loads
nothing but this file, and torch is loaded by the first call that needs it. The subcommands' own modules are in `diffusecli.verbs`: a module
`diffusecli/train.py` would become the attribute `train` as soon as anything imports it, and hide the function of that name.
"""

from importlib import import_module

TYPE_CHECKING = False  # as in `typing`, whose import alone takes longer than this file
if TYPE_CHECKING:
    from diffusecli.api.evaluation import Evaluation, evaluate
    from diffusecli.api.mixture import init_mixture
    from diffusecli.api.models import ensure_builtin
    from diffusecli.api.prompts import init_prompt, init_prompts
    from diffusecli.api.sampling import Samples, sample
    from diffusecli.api.training import Trained, TrainedPrompt, train
    from diffusecli.prompts.config import Config
    from diffusecli.prompts.prompt import Prompt
    from diffusecli.system.errors import DiffuseError, InputError, InterruptedRun, MachineError

__version__ = "0.1.0"

__all__ = [
    "Config",
    "DiffuseError",
    "Evaluation",
    "InputError",
    "InterruptedRun",
    "MachineError",
    "Prompt",
    "Samples",
    "Trained",
    "TrainedPrompt",
    "ensure_builtin",
    "evaluate",
    "init_mixture",
    "init_prompt",
    "init_prompts",
    "sample",
    "train",
]

_HOMES = {
    "diffusecli.api.evaluation": ("Evaluation", "evaluate"),
    "diffusecli.api.mixture": ("init_mixture",),
    "diffusecli.api.models": ("ensure_builtin",),
    "diffusecli.api.prompts": ("init_prompt", "init_prompts"),
    "diffusecli.api.sampling": ("Samples", "sample"),
    "diffusecli.api.training": ("Trained", "TrainedPrompt", "train"),
    "diffusecli.prompts.config": ("Config",),
    "diffusecli.prompts.prompt": ("Prompt",),
    "diffusecli.system.errors": ("DiffuseError", "InputError", "InterruptedRun", "MachineError"),
}


if not TYPE_CHECKING:  # a type checker would take any name for one that is there

    def __getattr__(name: str) -> object:
        for home, names in _HOMES.items():
            if name in names:
                return getattr(import_module(home), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
