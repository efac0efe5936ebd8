"""Config files: the original's are read unchanged, mistakes are told with their place."""

import pytest

from diffusecli.prompts.config_files import read_config
from diffusecli.system.errors import InputError
from diffusecli.training.start import sized

ORIGINAL = """\
model: meta-llama/Llama-2-13b-chat-hf
train_prompts:
 - prompts/baby-names
test_prompts:
 - prompts/baby-names
alg_config:
  n_iters: 50
  early_stop: true
  gamma: 0.2
output_dir: results-lora/llama-2-13b-chat/baby-names
"""


def config_file(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return path


def test_the_originals_config_is_read_unchanged(tmp_path):
    config = read_config(config_file(tmp_path, ORIGINAL))
    assert (config.alg_config.n_iters, config.alg_config.early_stop, config.alg_config.gamma) == (50, True, 0.2)
    assert (config.alg_config.batch_size, config.generate, config.load_model, sized(config.lora, 5).r) == (32, True, False, 4)


def test_continuing_from_an_adapter_is_read(tmp_path):
    config = read_config(config_file(tmp_path, ORIGINAL + "load_model: true\nckpt_dir: results/all\n"))
    assert config.ckpt_dir == "results/all"


@pytest.mark.parametrize("number", ["1e-4", "1.0e-4", "0.0001"])
def test_numbers_that_yaml_takes_for_words_are_numbers(tmp_path, number):
    text = ORIGINAL.replace("  gamma: 0.2", f"  gamma: {number}\n  learning_rate: {number}")
    config = read_config(config_file(tmp_path, text))
    assert (config.alg_config.gamma, config.alg_config.learning_rate) == (1e-4, 1e-4)


def test_a_mistake_is_raised_with_its_place_and_its_remedy(tmp_path):
    path = config_file(tmp_path, ORIGINAL.replace("gamma", "gama"))
    with pytest.raises(InputError) as caught:
        read_config(path)
    assert str(caught.value) == f"{path}:9:3: unknown key 'gama'. Did you mean 'gamma'?"


def test_any_setting_can_be_overridden_with_the_same_checks(tmp_path):
    path = config_file(tmp_path, ORIGINAL)
    config = read_config(path, ["alg_config.n_iters=7", "lora.r=16", "test_prompts=[]", "model=m", "alg_config.learning_rate=1e-4"])
    assert (config.alg_config.n_iters, config.lora.r, config.test_prompts, config.model) == (7, 16, (), "m")
    assert config.alg_config.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "alg_config.n_iters=many",
            "--set alg_config.n_iters=many: 'alg_config.n_iters' must be a whole number, not 'many'",
        ),
        ("prompts=[a.json]", "--set prompts=[a.json]: unknown key 'prompts'. Did you mean 'test_prompts'?"),
        ("lora.seed=3", "--set lora.seed=3: unknown key 'seed'. Did you mean 'seed' of the file itself?"),
        ("n_iters=5", "--set n_iters=5: unknown key 'n_iters'. Did you mean 'alg_config.n_iters'?"),
        ("alg_config.n_iter=5", "--set alg_config.n_iter=5: unknown key 'n_iter'. Did you mean 'n_iters'?"),
        ("n_iters", "--set n_iters: write KEY=VALUE, e.g. --set alg_config.n_iters=10"),
        ("model.x=5", "--set model.x=5: 'model' has no keys"),
        ("model=[", "--set model=[: the value cannot be read. Put quotes around it"),
    ],
)
def test_an_override_that_is_wrong_is_named_itself(tmp_path, override, message):
    with pytest.raises(InputError) as caught:
        read_config(config_file(tmp_path, ORIGINAL), [override])
    assert str(caught.value) == message


def test_model_and_config_stand_for_their_names_in_output_dir(tmp_path):
    text = ORIGINAL.replace("results-lora/llama-2-13b-chat/baby-names", "out/{model}/{config}")
    assert read_config(config_file(tmp_path, text)).output_dir == "out/Llama-2-13b-chat-hf/c"


def test_paths_are_taken_from_the_working_directory_then_from_the_configs_folder(tmp_path, monkeypatch):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    (home / "prompts" / "baby-names").mkdir(parents=True)
    elsewhere.mkdir()
    path = config_file(home, ORIGINAL)
    monkeypatch.chdir(elsewhere)
    assert read_config(path).train_prompts == (str(home / "prompts" / "baby-names"),)
    (elsewhere / "prompts" / "baby-names").mkdir(parents=True)
    assert read_config(path).train_prompts == ("prompts/baby-names",)


def test_the_resolved_config_reads_back_as_itself(tmp_path):
    config = read_config(config_file(tmp_path, ORIGINAL))
    assert read_config(config_file(tmp_path, config.to_yaml())) == config


@pytest.mark.parametrize(("model", "prompts"), [("rand(1,10)", "prompts/rand(1,10)"), ("a b", "prompts/ä")])
def test_unusual_names_in_paths_are_fine(tmp_path, model, prompts):
    config = read_config(config_file(tmp_path, f'model: "{model}"\ntrain_prompts: ["{prompts}"]\noutput_dir: "results/{model}"\n'))
    assert (config.output_dir, config.train_prompts) == (f"results/{model}", (prompts,))


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_config(tmp_path / "no.yaml")


def test_own_instructions_are_found_beside_the_config(tmp_path):
    (tmp_path / "own").mkdir()
    path = tmp_path / "c.yaml"
    path.write_text("model: m\ntrain_prompts: []\noutput_dir: o\nretain: {prompts: [own]}\n")
    assert read_config(path).retain.prompts == (str(tmp_path / "own"),)


@pytest.mark.parametrize("word", ["off", "'off'", "false"])
def test_retention_is_switched_off_by_a_word(tmp_path, word):
    path = tmp_path / "c.yaml"
    path.write_text(f"model: m\noutput_dir: o\nretain: {word}\n")
    assert read_config(path).retain is False


def test_a_mistake_in_retention_is_told_with_its_place(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("model: m\noutput_dir: o\nretain:\n  wieght: 2\n")
    with pytest.raises(InputError, match=r"c\.yaml:4:3: .*wieght"):
        read_config(path)
