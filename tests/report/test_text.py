import pytest

from pipeline.report.text import HIDDEN, printable, redacted


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("hf_AbCdEfGhIjKlMnOpQrStUvWx", "AbCd"),
        ("Authorization: Bearer abc.def-123", "abc.def"),
        ("WANDB_API_KEY=0123456789abcdef", "0123456789"),
        ("{'api_key': 'comet-0123456789'}", "comet-0123456789"),
        ("https://me:word@host/file.zip", "word"),
        ("https://host/f.zip?X-Amz-Signature=cafe&x=1", "cafe"),
    ],
)
def test_secrets_are_hidden_and_the_rest_is_kept(text, secret):
    shown = redacted(text)
    assert secret not in shown
    assert HIDDEN in shown


@pytest.mark.parametrize("text", ["tokens: 256", "key: value", "https://host/a.zip?category=chair", "a: b@c.d"])
def test_ordinary_text_is_left_alone(text):
    assert redacted(text) == text


def test_invisible_and_broken_characters_become_visible():
    assert printable("a\u202eb\x00c\ud800d\u200b") == "a\ufffdb\ufffdc\ufffdd\ufffd"
    assert printable("Stuhl ä 椅\n\t") == "Stuhl ä 椅\n\t"
