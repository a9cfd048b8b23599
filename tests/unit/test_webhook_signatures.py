"""Signatures of webhooks: two libraries verify ours, ours verifies theirs, and nothing changed passes."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime

import pytest
import standardwebhooks
import svix.webhooks
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from taskade_server.kit import webhook_signatures as signatures

from tests.unit.examples import examples

NOW = int(datetime.now(UTC).timestamp())
BODY = b'{"type":"task.created","data":{"name":"\xc3\x9cbung"}}'
SECRETS = st.binary(min_size=24, max_size=64).map(lambda raw: "whsec_" + base64.b64encode(raw).decode())
PLAIN = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=8, max_size=40).filter(
    lambda text: signatures.secret_refusal(text) is None
)
IDS = st.from_regex(r"evt_[a-z0-9]{26}", fullmatch=True)
BODIES = st.text(max_size=200).map(str.encode)
PAIR = signatures.new_key_pair()


def delivery(body=BODY, keys=("a secret of others",), message_id="evt_1", timestamp=NOW):
    return signatures.headers(message_id, timestamp, body, list(keys))


# ---- published examples ----------------------------------------------------------------------------------------------


def test_the_example_of_a_symmetric_signature():
    found = signatures.sign(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_key_pair_in_use_elsewhere():
    private = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
    assert signatures.public_key(private) == "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="


def test_ed25519_is_that_of_rfc_8032():
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    key = "whsk_" + base64.b64encode(seed).decode()
    assert signatures.public_key(key) == "whpk_" + base64.b64encode(public).decode()
    assert signatures.public_key("whsk_" + base64.b64encode(seed + public).decode()) == signatures.public_key(key)


def test_the_plain_signature_is_that_of_a_handler_of_ten_lines():
    expected = hmac.new(b"your_webhook_secret", BODY, hashlib.sha256).hexdigest()
    assert signatures.sign_plain(BODY, "your_webhook_secret") == f"sha256={expected}"
    assert signatures.verify_plain(f"sha256={expected}", BODY, "your_webhook_secret")
    assert not signatures.verify_plain(f"sha256={expected}", BODY + b" ", "your_webhook_secret")
    assert not signatures.verify_plain("sha256=ü", BODY, "your_webhook_secret")


# ---- other libraries -------------------------------------------------------------------------------------------------


@examples(100)
@given(SECRETS | PLAIN, st.lists(SECRETS, max_size=2), IDS, BODIES)
def test_two_libraries_verify_ours(secret, others, message_id, body):
    signed = delivery(body, [*others, secret], message_id, int(datetime.now(UTC).timestamp()))
    chosen = signatures.standard_form(secret)
    for library in (standardwebhooks.Webhook(chosen), svix.webhooks.Webhook(chosen)):
        arguments = {"json_parse": False} if isinstance(library, standardwebhooks.Webhook) else {}
        library.verify(body, signed, **arguments)


@examples(100)
@given(SECRETS, IDS, BODIES)
def test_ours_verifies_theirs(secret, message_id, body):
    moment = datetime.fromtimestamp(NOW, UTC)
    for module in (standardwebhooks, svix.webhooks):
        signature = module.Webhook(secret).sign(message_id, moment, body.decode())
        received = {"Webhook-Id": message_id, "Webhook-Timestamp": str(NOW), "WEBHOOK-SIGNATURE": signature}
        signatures.verify(received, body, [secret], now=NOW)


# ---- what passes, and what does not ----------------------------------------------------------------------------------


@examples(100)
@given(st.lists(SECRETS | PLAIN | st.just(PAIR.private), min_size=1, max_size=4), IDS, BODIES, st.data())
def test_each_key_that_signed_verifies_alone(keys, message_id, body, data):
    signed = delivery(body, keys, message_id)
    key = data.draw(st.sampled_from(keys))
    signatures.verify(signed, body, [key], now=NOW)
    if key == PAIR.private:
        signatures.verify(signed, body, [PAIR.public], now=NOW)
    assert len(signed["webhook-signature"].split(" ")) == len(keys)


PLACES = ["body", "webhook-id", "webhook-timestamp", "webhook-signature"]


@examples(300)
@given(st.sampled_from(["v1", "v1a"]), st.sampled_from(PLACES), st.data())
def test_no_flipped_bit_passes(kind, place, data):
    key, check = (PAIR.private, PAIR.public) if kind == "v1a" else ("your_webhook_secret",) * 2
    parts = {**signatures.headers("evt_1", NOW, BODY, [key]), "body": BODY.decode("latin-1")}
    raw = bytearray(parts[place].encode("latin-1"))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    parts[place] = raw.decode("latin-1")
    body = parts.pop("body").encode("latin-1")
    with pytest.raises(signatures.Unverified):
        signatures.verify(parts, body, [check], now=NOW)


@examples(200)
@given(st.text(max_size=60), st.lists(st.text("v1a,= xyz/+", max_size=30), max_size=5).map(" ".join))
def test_whatever_is_sent_is_refused_in_words(timestamp, signature):
    received = {"webhook-id": "evt_1", "webhook-timestamp": timestamp, "webhook-signature": signature}
    with pytest.raises(signatures.Unverified):
        signatures.verify(received, BODY, ["your_webhook_secret", PAIR.public], now=NOW)
    received["webhook-timestamp"] = str(NOW)
    with pytest.raises(signatures.Unverified):
        signatures.verify(received, BODY, ["your_webhook_secret", PAIR.public], now=NOW)


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"webhook-id": ""}, "missing_header", "webhook-id is missing"),
        ({"webhook-timestamp": ""}, "missing_header", "webhook-timestamp is missing"),
        ({"webhook-signature": ""}, "missing_header", "webhook-signature is missing"),
        ({"webhook-timestamp": "1e9"}, "bad_timestamp", "whole seconds"),
        ({"webhook-timestamp": "-5"}, "bad_timestamp", "whole seconds"),
        ({"webhook-timestamp": "١٢٣"}, "bad_timestamp", "whole seconds"),
        ({"webhook-timestamp": str(NOW - 301)}, "stale", "301 seconds ago"),
        ({"webhook-timestamp": str(NOW + 301)}, "stale", "301 seconds ahead"),
        ({"webhook-signature": "v2,AAAA"}, "bad_signature", "no signature of the kind"),
        ({"webhook-signature": "nonsense"}, "bad_signature", "no signature of the kind"),
        ({"webhook-signature": "v1,AAAA"}, "bad_signature", "None of the signatures fits"),
        ({"webhook-signature": "v1a,AAAA"}, "bad_signature", "None of the signatures fits"),
    ],
)
def test_why_not_is_said(change, code, words):
    with pytest.raises(signatures.Unverified, match=words) as refusal:
        signatures.verify({**delivery(), **change}, BODY, ["your_webhook_secret"], now=NOW)
    assert refusal.value.code == code


@pytest.mark.parametrize(
    ("key", "check"), [("your_webhook_secret",) * 2, (PAIR.private, PAIR.public)], ids=["a secret", "a key pair"]
)
def test_only_one_spelling_of_a_signature_is_one(key, check):
    """The last letter of base64 has bits that mean nothing, and another label would mean another algorithm."""
    signed = signatures.headers("evt_1", NOW, BODY, [key])
    version, _, text = signed["webhook-signature"].partition(",")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    body, padding = text.rstrip("="), text[len(text.rstrip("=")) :]
    next_letter = letters[letters.index(body[-1]) ^ 1]
    for other in (f"v2,{text}", f"V1,{text}", f"{version},{body}", f"{version},{body[:-1]}{next_letter}{padding}"):
        with pytest.raises(signatures.Unverified):
            signatures.verify({**signed, "webhook-signature": other}, BODY, [check], now=NOW)
    signatures.verify({**signed, "webhook-signature": f"v2,AAAA {version},{text}"}, BODY, [check], now=NOW)


def test_the_edges_of_the_tolerance():
    for offset in (-300, 0, 300):
        signed = delivery(keys=["your_webhook_secret"], timestamp=NOW + offset)
        signatures.verify(signed, BODY, ["your_webhook_secret"], now=NOW)
    signed = delivery(keys=["your_webhook_secret"], timestamp=NOW - 50)
    with pytest.raises(signatures.Unverified):
        signatures.verify(signed, BODY, ["your_webhook_secret"], now=NOW, tolerance=49)


# ---- secrets ---------------------------------------------------------------------------------------------------------


def test_a_new_secret_is_random_and_of_the_asked_size():
    assert signatures.new_secret() != signatures.new_secret()
    for size in (24, 32, 64):
        secret = signatures.new_secret(size)
        assert len(signatures.secret_bytes(secret)) == size
        assert signatures.secret_refusal(secret) is None
    for size in (0, 23, 65):
        with pytest.raises(ValueError, match="24 to 64"):
            signatures.new_secret(size)


@examples(200)
@given(PLAIN)
def test_a_chosen_text_is_used_as_it_is(secret):
    assert signatures.secret_bytes(secret) == secret.encode()
    assert signatures.secret_bytes(signatures.standard_form(secret)) == secret.encode()


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ("short", "8 to 256"),
        ("x" * 257, "8 to 256"),
        ("whsec_", "24 to 64 bytes"),
        ("whsec_" + base64.b64encode(b"x" * 23).decode(), "24 to 64 bytes"),
        ("whsec_" + base64.b64encode(b"x" * 65).decode(), "24 to 64 bytes"),
        ("whsec_not base64 at all, really!", "24 to 64 bytes"),
        ("whsec_" + "-_" * 20, "24 to 64 bytes"),
        pytest.param(PAIR.private, "does not begin", id="a private key"),
        pytest.param(PAIR.public, "does not begin", id="a public key"),
        (" a secret with a space", "invisible"),
        ("two\nlines of it", "invisible"),
        ("with a \x00 in it", "invisible"),
    ],
)
def test_which_secrets_cannot_be_chosen(secret, words):
    assert words in (signatures.secret_refusal(secret) or "")


@pytest.mark.parametrize("secret", ["your_webhook_secret", "pass phrase", "gêhéîm-gêhéîm", "sk_live_1234"])
def test_which_secrets_can(secret):
    assert signatures.secret_refusal(secret) is None


@pytest.mark.parametrize("key", ["whsk_AAAA", "whsk_!", "whpk_AAAA", "whsk_" + base64.b64encode(b"x" * 64).decode()])
def test_keys_that_are_none(key):
    with pytest.raises(ValueError, match=r"private|public"):
        signatures.verify(delivery(keys=[PAIR.private]), BODY, [key], now=NOW)


@pytest.mark.parametrize("message_id", ["", "a.b", "ü", "a\nb"])
def test_an_id_that_would_make_two_readings_of_what_is_signed(message_id):
    with pytest.raises(ValueError, match="without a dot"):
        signatures.sign(message_id, NOW, BODY, ["your_webhook_secret"])


def test_nothing_is_sent_unsigned():
    with pytest.raises(ValueError, match="no key"):
        signatures.sign("evt_1", NOW, BODY, [])
    assert "X-Taskade-Signature" not in signatures.headers("evt_1", NOW, BODY, [PAIR.private])


def test_a_signature_is_checked_by_cryptography_itself():
    signed = signatures.sign("evt_1", NOW, BODY, [PAIR.private])
    raw = base64.b64decode(PAIR.private.removeprefix("whsk_"))
    public = Ed25519PrivateKey.from_private_bytes(raw[:32]).public_key()
    public.verify(base64.b64decode(signed.removeprefix("v1a,")), f"evt_1.{NOW}.".encode() + BODY)


def test_each_key_signs_once_however_many_signatures_a_request_has(monkeypatch):
    """A request bin verifies what anybody sends, with the keys of all webhooks that point to it."""
    signed = []
    sign = signatures._sign

    def noted(content, key):
        signed.append(key)
        return sign(content, key)

    monkeypatch.setattr(signatures, "_sign", noted)
    keys = [signatures.new_secret(), signatures.new_key_pair().private]
    wrong = " ".join([f"v1a,{'A' * 86}=="] * 9 + [f"v1,{'A' * 43}="] * 9)
    headers = {"webhook-id": "evt_1", "webhook-timestamp": "1000", "webhook-signature": wrong}
    with pytest.raises(signatures.Unverified):
        signatures.verify(headers, b"{}", keys, now=1000)
    assert signed == keys
