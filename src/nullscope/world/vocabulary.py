"""The two tokenisers of the embedded encoders: one token per word of the world, so that the text towers stay tiny.

The end token has the largest id, because open_clip's text tower pools where the token id is largest.
"""

from __future__ import annotations

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from nullscope.world.scenes import WORDS

PAD, UNKNOWN, BEGIN, END = "[PAD]", "[UNK]", "[BOS]", "[EOS]"
TOKENS = (PAD, UNKNOWN, BEGIN, *WORDS, END)
CONTEXT_LENGTH = 12  # a caption's ten words, begin and end


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a word tokeniser that writes ``[BOS] words [EOS]`` and knows `TOKENS` only."""
    ids = {token: number for number, token in enumerate(TOKENS)}
    words = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}", special_tokens=[(BEGIN, ids[BEGIN]), (END, ids[END])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=BEGIN,
        eos_token=END,
        cls_token=BEGIN,
        sep_token=END,
        model_max_length=CONTEXT_LENGTH,
        clean_up_tokenization_spaces=False,
    )
