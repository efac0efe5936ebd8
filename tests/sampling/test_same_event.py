"""Exact probabilities and samples are about the same answers, however a template surrounds and ends them, in both engines."""

import pytest

from diffusecli.models.loading import load_model
from diffusecli.models.lora import load_adapter
from diffusecli.models.source import model_source
from diffusecli.prompts.config import Config
from diffusecli.prompts.prompt_files import read_prompt
from diffusecli.sampling.engine import drawn
from diffusecli.sampling.local_engine import LocalEngine
from diffusecli.sampling.settings import SamplingSettings
from diffusecli.verbs.train import train
from tests.models.test_chat import WORDY
from tests.tiny import CHATML

TEMPLATES = {
    "a token ends turns": CHATML,
    "words end turns": WORDY,
    "a line end ends turns, and two stand before answers": (
        "{% for m in messages %}{% if m.role == 'user' %}Q: {{ m.content }}{% else %}{{ '\n\n' + m.content + '\n' }}{% endif %}{% endfor %}"
    ),
    "spaces stand around answers": (
        "{% for m in messages %}{% if m.role == 'user' %}[{{ m.content }}]{% else %}{{ ' ' + m.content + ' ' }}<|im_end|>{% endif %}{% endfor %}"
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("template", TEMPLATES)
def test_the_share_of_targets_among_samples_is_their_exact_probability(
    template, tiny_model_folder, tmp_path, prompt_file, monkeypatch
):
    path = tmp_path / "t.jinja"
    path.write_text(TEMPLATES[template])
    config = Config.model_validate({
        "model": str(tiny_model_folder), "train_prompts": [str(prompt_file("p.json", targets=["{a}", "C"], weights=[3, 1]))],
        "output_dir": str(tmp_path / "run"), "device": "cpu", "generate": False, "retain": False, "chat_template": str(path),
        "alg_config": {"n_iters": 80, "learning_rate": 0.02}, "lora": {"r": 16, "alpha": 32},
    })  # fmt: skip
    done = train(config, report=lambda _: None, notice=lambda _: None)
    exact = next(iter(done.after.on_target.values()))
    assert 0.2 < exact < 0.9999, exact
    base = load_model(model_source(config), print)
    load_adapter(base, done.run.path)
    prompt = read_prompt(tmp_path / "p.json")

    def share(n):
        counts, _ = drawn(LocalEngine(base, SamplingSettings(n, max_new_tokens=30)), prompt)
        return sum(counts[target] for target in prompt.targets) / n

    assert share(4000) == pytest.approx(exact, abs=0.03)
    monkeypatch.setattr("diffusecli.sampling.local_engine.choose_rows", lambda _: None)
    assert share(1000) == pytest.approx(exact, abs=0.06)
