"""What an object store says against a call, as a few words for a person.

Its own words run over thirty lines, and hold URLs that may be signed: neither is for a log.
"""

import re
from urllib.parse import urlsplit

from cluster.text import first_line, plain

IN_WORDS = {
    "SignatureDoesNotMatch": "the credentials in the environment are wrong",
    "InvalidAccessKeyId": "the credentials in the environment are wrong",
    "AuthorizationFailure": "the credentials in the environment are wrong",
    "AuthenticationFailed": "the credentials in the environment are wrong",
    "Account must be specified": "no account in the environment: set AZURE_STORAGE_ACCOUNT_NAME",
    # Of a store that found none in the environment, and asked the machine for some.
    "169.254.": "no credentials in the environment, and this machine has no role that gives any",
    "metadata.google": "no credentials in the environment, and this machine has no role that gives any",
}
"""What stands in a store's words, and what it means."""


def what_is_wrong(error: BaseException) -> str:
    """A few words on why a store refused or failed, and which machine was asked."""
    text = str(error).split("\n\nDebug source")[0]
    asked = re.search(r"performing \w+ (\S+) in ", text)
    host = urlsplit(asked[1]).netloc if asked else ""
    for sign, words in IN_WORDS.items():
        if sign in text:
            return words
    if "error sending request" in text:
        return f"nothing answers at {host}"
    return f"{_own_words(text)} (says {host})" if host else _own_words(text)


def broke_off(error: BaseException) -> bool:
    """Whether an answer began well and was not heard to its end."""
    return "body error" in first_line(error)


def _own_words(text: str) -> str:
    code, message = (re.search(f"<{name}>(.*?)</{name}>", text, re.DOTALL) for name in ("Code", "Message"))
    if code is not None:
        return plain(f"{code[1]}: {first_line(message[1]) if message else ''}", 200)
    return plain(re.sub(r"^Generic \w+ error: ", "", first_line(text.split(" - ")[-1])), 200)
