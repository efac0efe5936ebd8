"""TRL's `SFTTrainer` with a LoRA adapter, run in a separate environment (see `peers`). Imports nothing of this project.

Prints one line of JSON for every adapter that it saves, with steps and seconds of training (without saving).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def main(settings: dict[str, Any]) -> None:
    """Train on rows of `prompt` and `completion`; `settings` come from `peers`."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Counts the seconds of steps, saves adapters between steps, and ends training when its time is up."""

        def __init__(self) -> None:
            self.trained = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, _: Any, state: Any, control: Any, model: Any = None, **__: Any) -> None:
            self.trained += time.perf_counter() - self.began
            folder = Path(settings["output_dir"]) / f"step-{state.global_step}"
            model.save_pretrained(folder)
            print(json.dumps({"folder": str(folder), "step": state.global_step, "seconds": self.trained}), flush=True)
            control.should_training_stop |= self.trained > settings["seconds"]

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=torch.float32)
    trainer = SFTTrainer(
        model=model,
        processing_class=AutoTokenizer.from_pretrained(settings["model"]),
        train_dataset=Dataset.from_list(settings["rows"]),
        peft_config=LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"),
        args=SFTConfig(
            output_dir=settings["output_dir"],
            per_device_train_batch_size=settings["batch_size"],
            max_steps=settings["steps"],
            learning_rate=settings["learning_rate"],
            lr_scheduler_type="linear",
            warmup_steps=settings["warmup"],
            gradient_checkpointing=False,
            completion_only_loss=True,
            bf16=False,
            use_cpu=True,
            eval_strategy="no",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
        callbacks=[Clock()],
    )
    trainer.train()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
