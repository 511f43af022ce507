"""TrainerLoss in the real trainers of transformers, from random weights, on lines of Multi30k."""

import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import campaign
import pytest
import torch

try:
    import torchaudio  # noqa: F401
except ImportError:
    pass
except OSError:  # that of fairseq-fixed is for another torch than a CPU's, and transformers would import it
    sys.modules["torchaudio"] = None
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import sacrebleu  # noqa: E402

from labo_fairseq.integrations.transformers import PosteriorLogits, TrainerLoss  # noqa: E402
from labo_fairseq.losses import LaboLoss, LinearLaboLoss, label_smoothing_log_posterior  # noqa: E402

PAD, EOS = 0, 1


def lines(language):
    return [line.strip().lower() for line in campaign.multi30k("train", language)[:24]]


class Words:
    """Whole words as numbers: PAD, EOS, unknown, then what the text has."""

    def __init__(self, text):
        self.words = ["<pad>", "</s>", "<unk>", *sorted({word for line in text for word in line.split()})]
        self.numbers = {word: number for number, word in enumerate(self.words)}

    def encode(self, line):
        return [self.numbers.get(word, 2) for word in line.split()] + [EOS]

    def decode(self, ids):
        return " ".join(self.words[i] for i in ids if i > 2)


@pytest.fixture(scope="module")
def text():
    return lines("de"), lines("en")


@pytest.fixture(scope="module")
def words(text):
    return Words(text[0] + text[1])


def pad(rows, value):
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


class Collator:
    """Pads; gives the decoder its input if it has the model, as DataCollatorForSeq2Seq does."""

    def __init__(self, model=None):
        self.model = model

    def __call__(self, examples):
        source = pad([example["input_ids"] for example in examples], PAD)
        batch = {"input_ids": source, "attention_mask": source.ne(PAD).long()}
        batch["labels"] = pad([example["labels"] for example in examples], -100)
        if self.model is not None:
            batch["decoder_input_ids"] = self.model.prepare_decoder_input_ids_from_labels(labels=batch["labels"])
        return batch


def marian(words, seed=0):
    torch.manual_seed(seed)
    size = {"d_model": 48, "encoder_layers": 1, "decoder_layers": 1}
    size.update({f"{side}_attention_heads": 2 for side in ("encoder", "decoder")})
    size.update({f"{side}_ffn_dim": 96 for side in ("encoder", "decoder")})
    config = transformers.MarianConfig(
        **size, vocab_size=len(words.words), max_position_embeddings=64, pad_token_id=PAD, eos_token_id=EOS,
        decoder_start_token_id=PAD, forced_eos_token_id=None, dropout=0.0, scale_embedding=True,
    )  # fmt: skip
    return transformers.MarianMTModel(config)


def gpt(words, seed=0):
    torch.manual_seed(seed)
    config = transformers.GPT2Config(
        vocab_size=len(words.words), n_positions=64, n_embd=32, n_layer=1, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, bos_token_id=PAD, eos_token_id=EOS,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def pairs(text, words):
    return [{"input_ids": words.encode(de), "labels": words.encode(en)} for de, en in zip(*text)]


def monolingual(text, words):
    return [{"input_ids": words.encode(en), "labels": words.encode(en)} for en in text[1]]


def arguments(folder, kind=transformers.TrainingArguments, **options):
    usual = {"per_device_train_batch_size": 8, "learning_rate": 1e-2, "report_to": [], "save_strategy": "no", "seed": 1}
    usual.update(use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False, lr_scheduler_type="constant")
    return kind(output_dir=str(folder), **{**usual, **options})


@pytest.mark.filterwarnings("ignore")
def test_a_translator_from_random_weights_to_bleu(tmp_path, text, words):
    model, data = marian(words), pairs(text, words)
    loss = TrainerLoss(LaboLoss(tau=1.25, alpha=0.1), warmup_steps=20)
    seen = []

    class Watch(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            seen.append((state.global_step, loss.loss.updates, loss.loss.warming_up))

    options = {
        "num_train_epochs": 60,
        "learning_rate": 5e-3,
        "predict_with_generate": True,
        "generation_max_length": 40,
    }
    trainer = transformers.Seq2SeqTrainer(
        model=model,
        args=arguments(tmp_path, transformers.Seq2SeqTrainingArguments, **options),
        train_dataset=data,
        eval_dataset=data[:16],
        data_collator=Collator(model),
        compute_loss_func=loss,
        callbacks=[loss, Watch()],
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert seen == [(update, update, update < 20) for update in range(1, 60 * 3 + 1)]
    assert trainer.evaluate()["eval_loss"] < before / 2
    actual = trainer.predict(data[:16], max_new_tokens=40).predictions
    bleu = sacrebleu.corpus_bleu([words.decode(row) for row in actual], [text[1][:16]]).score
    assert bleu > 30, "it learns its 24 sentences by heart"
    loss.loss.set_updates(1000)
    processor = transformers.LogitsProcessorList([PosteriorLogits(loss.loss)])
    batch = Collator()(data[:16])
    del batch["labels"]
    calibrated = model.generate(**batch, max_new_tokens=40, num_beams=3, logits_processor=processor)
    assert sacrebleu.corpus_bleu([words.decode(row) for row in calibrated], [text[1][:16]]).score > 30


def trained(tmp_path, model, data, collator, loss, **options):
    """Parameters and logged losses of 4 updates."""
    trainer = transformers.Trainer(
        model=model,
        args=arguments(tmp_path, max_steps=4, logging_steps=1, optim="sgd", **options),
        train_dataset=data,
        data_collator=collator,
        compute_loss_func=loss,
        callbacks=[loss],
    )
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {name: value.detach().clone() for name, value in model.named_parameters()}, losses


@pytest.mark.parametrize("kind", ["encoder-decoder", "decoder-only"])
def test_accumulated_micro_batches_are_one_batch(tmp_path, text, words, kind):
    results = []
    for size, steps in ((8, 1), (2, 4)):
        model = marian(words) if kind == "encoder-decoder" else gpt(words)
        data = pairs(text, words) if kind == "encoder-decoder" else monolingual(text, words)
        collator = Collator(model if kind == "encoder-decoder" else None)
        options = {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps, "learning_rate": 0.1}
        loss = TrainerLoss(LaboLoss(), warmup_steps=2)
        results.append(trained(tmp_path, model, data, collator, loss, **options))
    (one, losses), (other, other_losses) = results
    assert losses == pytest.approx(other_losses, rel=1e-3)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-5)


def test_the_loss_of_a_decoder_is_that_of_the_next_word(tmp_path, text, words):
    model, data = gpt(words), monolingual(text, words)
    loss = TrainerLoss(LaboLoss(tau=1.15))
    trainer = transformers.Trainer(
        model=model, args=arguments(tmp_path), data_collator=Collator(), compute_loss_func=loss, callbacks=[loss]
    )
    batch = Collator()(data[:4])
    actual = trainer.compute_loss(model, dict(batch))
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = LaboLoss(tau=1.15)(logits[:, :-1].transpose(1, 2), batch["labels"][:, 1:])
    torch.testing.assert_close(actual, expected)
    assert trainer.compute_loss(model, dict(batch), num_items_in_batch=torch.tensor(7)).item() == pytest.approx(
        expected.item() * batch["labels"][:, 1:].ne(-100).sum().item() / 7, rel=1e-5
    )


def cross_entropies(folder, model, collator, data):
    """By update, that of every checkpoint in ``folder``: the mean over sentences of what their batch has per token."""
    known = {}
    for place in folder.glob("checkpoint-*"):
        other = type(model).from_pretrained(place).eval()
        total = 0.0
        for start in range(0, len(data), 8):
            batch = collator(data[start : start + 8])
            labels = batch.pop("labels")
            with torch.no_grad():
                logits = other(**batch).logits
            value = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100)
            total += value.item() * len(labels)
        known[int(place.name.split("-")[1])] = total / len(data)
    return known


@pytest.mark.filterwarnings("ignore")
def test_the_best_model_goes_by_the_cross_entropy(tmp_path, text, words):
    """By LABO's value, which begins far above that of label smoothing, a model of the warm-up would stay the best."""
    model, data = marian(words), pairs(text, words)
    loss = TrainerLoss(LaboLoss(), warmup_steps=30)
    every = {"eval_strategy": "steps", "eval_steps": 6, "save_strategy": "steps", "save_steps": 6, "max_steps": 60}
    trainer = transformers.Trainer(
        model=model,
        args=arguments(tmp_path, load_best_model_at_end=True, learning_rate=5e-3, **every),
        train_dataset=data,
        eval_dataset=data[:12],
        data_collator=Collator(model),
        compute_loss_func=loss,
        callbacks=[loss],
    )
    trainer.train()
    logged = {row["step"]: row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row}
    expected = cross_entropies(tmp_path, model, Collator(model), data[:12])
    assert logged == pytest.approx(expected, rel=1e-4)
    best = min(expected, key=expected.get)
    assert best > 30, "it goes on to learn after the warm-up"
    assert trainer.state.best_model_checkpoint.endswith(f"checkpoint-{best}")


def test_the_warm_up_continues_after_a_resume(tmp_path, text, words):
    options = {"save_strategy": "steps", "save_steps": 3}
    data = pairs(text, words)
    updates = []
    for steps, resume in ((3, None), (5, True)):
        model, loss = marian(words), TrainerLoss(LaboLoss(), warmup_steps=4)
        trainer = transformers.Trainer(
            model=model,
            args=arguments(tmp_path, max_steps=steps, **options),
            train_dataset=data,
            data_collator=Collator(model),
            compute_loss_func=loss,
            callbacks=[loss],
        )
        call = TrainerLoss.__call__

        def counted(self, *arguments, call=call, **named):
            updates.append((self.loss.updates, self.loss.warming_up))
            return call(self, *arguments, **named)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TrainerLoss, "__call__", counted)
            trainer.train(resume_from_checkpoint=resume)
    assert updates == [(update, update < 4) for update in range(5)]


def test_a_decoder_without_input_is_refused(tmp_path, text, words):
    """MarianMT would take the source, shifted, for what it has said so far."""
    model, loss = marian(words), TrainerLoss(LaboLoss())
    trainer = transformers.Trainer(
        model=model,
        args=arguments(tmp_path, max_steps=1),
        train_dataset=pairs(text, words),
        data_collator=Collator(),
        compute_loss_func=loss,
        callbacks=[loss],
    )
    with pytest.raises(ValueError, match="no decoder_input_ids"):
        trainer.train()
    batch = Collator()(pairs(text, words)[:2])
    assert math.isfinite(model(**batch).loss.item()), "the model makes them of labels that it is given"


def test_a_loss_that_is_no_callback_is_refused(tmp_path, text, words):
    model, loss = marian(words), TrainerLoss(LaboLoss())
    trainer = transformers.Trainer(
        model=model,
        args=arguments(tmp_path, max_steps=1),
        train_dataset=pairs(text, words),
        data_collator=Collator(model),
        compute_loss_func=loss,
    )
    with pytest.raises(ValueError, match="callbacks="):
        trainer.train()


def test_options_that_do_not_suit_are_named(tmp_path, words):
    with pytest.raises(ValueError, match=r"ignore_index must be -100, .* got 0"):
        TrainerLoss(LaboLoss(ignore_index=0))
    with pytest.raises(ValueError, match="warmup_steps must be an integer ≥ 0, got -1"):
        TrainerLoss(LaboLoss(), warmup_steps=-1)
    with pytest.raises(ValueError, match="loss must be a LaboLoss, for the models give logits, got LinearLaboLoss"):
        TrainerLoss(LinearLaboLoss())
    loss, model = TrainerLoss(LaboLoss()), gpt(words)
    transformers.Trainer(model=model, args=arguments(tmp_path), compute_loss_func=loss, callbacks=[loss])
    with pytest.raises(ValueError, match="no labels"):
        loss((torch.zeros(1, 2, 3),), None)


def test_the_trainers_own_label_smoothing_is_not_dropped_without_a_word(tmp_path, words, caplog):
    for factor, said in ((0.0, 0), (0.1, 1)):
        loss, args = TrainerLoss(LaboLoss()), arguments(tmp_path, label_smoothing_factor=factor)
        transformers.Trainer(model=gpt(words), args=args, compute_loss_func=loss, callbacks=[loss])
        assert caplog.text.count(f"label_smoothing_factor={factor} has no effect") == said


def test_an_update_without_any_label_leaves_the_model_as_it_is(tmp_path, words):
    loss, model = TrainerLoss(LaboLoss()), gpt(words)
    transformers.Trainer(model=model, args=arguments(tmp_path), compute_loss_func=loss, callbacks=[loss])
    labels = torch.full((2, 3), -100)
    for counted in (None, 0, torch.tensor(0)):
        model.zero_grad()
        value = loss(model(torch.ones(2, 3, dtype=torch.long)), labels, counted)
        value.backward()
        assert value == 0
        assert all((parameter.grad == 0).all() for parameter in model.parameters())


def test_a_model_that_the_trainer_makes_is_the_one_that_is_asked_for_its_mode(tmp_path, text, words):
    """With model_init, as hyperparameter_search needs it, each training has a new model; these begin in eval mode."""
    loss, modes = TrainerLoss(LaboLoss()), []
    call = TrainerLoss.__call__

    def watched(self, *arguments, **named):
        modes.append((trainer.model.training, self._model is trainer.model))
        return call(self, *arguments, **named)

    trainer = transformers.Trainer(
        model_init=lambda: gpt(words).eval(),
        args=arguments(tmp_path, max_steps=2),
        train_dataset=monolingual(text, words),
        eval_dataset=monolingual(text, words)[:8],
        data_collator=Collator(),
        compute_loss_func=loss,
        callbacks=[loss],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainerLoss, "__call__", watched)
        for _ in range(2):
            trainer.train()
            trainer.evaluate()
    assert modes == [(True, True), (True, True), (False, True)] * 2


def bart(words, kind):
    size = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    size.update(encoder_attention_heads=2, decoder_attention_heads=2, max_position_embeddings=64, num_labels=3)
    return kind(transformers.BartConfig(**size, vocab_size=len(words.words), pad_token_id=PAD, eos_token_id=EOS))


def test_an_encoder_decoder_that_classifies(tmp_path, text, words):
    """It makes the input of its decoder of the source: nothing is missing."""
    data = [{"input_ids": words.encode(line), "labels": len(line) % 3} for line in text[0][:8]]

    def collate(examples):
        # each sentence ends with one EOS, in whose place the model reads its class
        source = pad([example["input_ids"] for example in examples], PAD)
        return {"input_ids": source, "labels": torch.tensor([example["labels"] for example in examples])}

    model = bart(words, transformers.BartForSequenceClassification)
    _, losses = trained(tmp_path, model, data, collate, TrainerLoss(LaboLoss()))
    assert len(losses) == 4
    assert all(math.isfinite(loss) for loss in losses)


def test_one_loss_for_models_of_two_kinds(tmp_path, words):
    """What the first trainer's model does with labels is not what the second one's does."""
    loss = TrainerLoss(LaboLoss())
    seen = []
    classifier = bart(words, transformers.BartForSequenceClassification)
    for model in (gpt(words), classifier, gpt(words)):
        transformers.Trainer(model=model, args=arguments(tmp_path), compute_loss_func=loss, callbacks=[loss])
        seen.append(loss.shift_labels)
    assert seen == [True, False, True]
    given = TrainerLoss(LaboLoss(), shift_labels=True)
    transformers.Trainer(model=classifier, args=arguments(tmp_path), compute_loss_func=given, callbacks=[given])
    assert given.shift_labels


def test_after_the_training_the_model_is_called_as_one_likes(tmp_path, text, words):
    model = bart(words, transformers.BartForConditionalGeneration)
    source = torch.tensor([[3, 1]])
    assert model(input_ids=source).logits.shape[:2] == (1, 2)
    trained(tmp_path, model, pairs(text, words), Collator(model), TrainerLoss(LaboLoss()))
    assert model(input_ids=source).logits.shape[:2] == (1, 2)


@pytest.mark.parametrize(
    ("warmup_steps", "expected"),
    [
        (2, None),
        (3, "the smoothing warm-up takes 3 of the 4 updates of this training: 1 are left. warmup_steps=1 would"),
        (4, "of this training: it is label smoothing and LABO never begins"),
    ],
)
def test_a_warmup_that_takes_most_of_the_training_is_told_of(tmp_path, text, words, caplog, warmup_steps, expected):
    trained(tmp_path, gpt(words), monolingual(text, words), Collator(), TrainerLoss(LaboLoss(), warmup_steps))
    said = [record.message for record in caplog.records if record.name.startswith("labo_fairseq")]
    assert [expected in message for message in said] == ([True] if expected else [])


def of_trainer(**options):
    """What TrainerLoss asks of the trainer's arguments."""
    usual = {"n_gpu": 0, "label_smoothing_factor": 0.0, "world_size": 1, "load_best_model_at_end": False}
    return SimpleNamespace(**{**usual, "metric_for_best_model": None, **options})


@pytest.mark.parametrize(
    ("warmup_steps", "metric", "said"), [(2, "loss", 1), (2, "eval_loss", 1), (0, "loss", 0), (2, "bleu", 0)]
)
def test_a_best_model_that_may_be_one_of_the_warmup_is_told_of(words, caplog, warmup_steps, metric, said):
    args = of_trainer(load_best_model_at_end=True, metric_for_best_model=metric)
    TrainerLoss(LaboLoss(), warmup_steps).on_init_end(args, None, None, model=gpt(words))
    assert caplog.text.count("the best may be a model of the warm-up") == said


def test_processes_that_count_their_own_tokens_are_told_of(words, caplog):
    for averaged, said in ((True, 0), (False, 1)):
        args = of_trainer(world_size=2, average_tokens_across_devices=averaged)
        TrainerLoss(LaboLoss()).on_init_end(args, None, None, model=gpt(words))
        assert caplog.text.count("each of the 2 processes divides by its own tokens") == said


def test_the_posterior_of_a_loss_that_counted_no_update_is_told_of(caplog):
    for loss, said in ((LaboLoss(), 0), (TrainerLoss(LaboLoss(), warmup_steps=0), 0), (LaboLoss(warmup_steps=5), 1)):
        caplog.clear()
        PosteriorLogits(loss)
        assert caplog.text.count("none of its 5 updates") == said


def test_the_posterior_of_a_trainers_loss_knows_its_warm_up(tmp_path):
    scores, loss = torch.tensor([[1.0, 2.0, 0.0]]), TrainerLoss(LaboLoss(label_smoothing=0.2), warmup_steps=5)
    smoothing, labo = label_smoothing_log_posterior(scores, 0.2), LaboLoss().log_posterior(scores)
    for updates, expected in ((3, smoothing), (6, labo)):
        loss.on_step_end(None, SimpleNamespace(global_step=updates), None)
        torch.testing.assert_close(PosteriorLogits(loss)(None, scores), expected)


_PROCESS = """
import os, sys, torch
sys.path[:0] = {paths!r}
from pathlib import Path
import test_transformers as t
text = t.lines("de"), t.lines("en")
words = t.Words(text[0] + text[1])
model = t.marian(words)
loss = t.TrainerLoss(t.LaboLoss(), warmup_steps=2)
options = dict(per_device_train_batch_size=int(sys.argv[2]), learning_rate=0.1, gradient_accumulation_steps=2)
parameters, losses = t.trained(sys.argv[1], model, t.pairs(text, words), t.Collator(model), loss, **options)
if os.environ["RANK"] == "0":
    torch.save(parameters, sys.argv[1] + "/parameters.pt")
"""


def test_two_processes_are_one(tmp_path, text):
    here = Path(__file__).resolve().parent
    script = tmp_path / "train.py"
    script.write_text(_PROCESS.format(paths=[str(here), str(here.parent), str(here.parents[1])]), encoding="utf-8")
    actual = []
    for processes, size in ((1, 4), (2, 2)):
        folder = tmp_path / str(processes)
        folder.mkdir()
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        done = subprocess.run(
            [*start, script, folder, str(size)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
        )
        assert done.returncode == 0, done.stdout[-3000:]
        actual.append(torch.load(folder / "parameters.pt", weights_only=True))
    for name in actual[0]:
        torch.testing.assert_close(actual[0][name], actual[1][name], rtol=1e-3, atol=1e-5)
