"""Signatures by OpenSSH: made with a key, verified offline against a file of trusted signers.

OpenSSH is on every machine that Ansible reaches, and git verifies tags with the same keys. The form of the file of
signers is that of ALLOWED SIGNERS in ssh-keygen(1): https://man.openbsd.org/ssh-keygen#ALLOWED_SIGNERS
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from host.errors import Refusal

NAMESPACE = "lingbi"  # a signature for anything else, an e-mail say, is none for us
TAGS = "git"  # the namespace in which git signs


def sign(text: bytes, key: Path) -> bytes:
    """The signature of a text. ssh-keygen asks for the key's passphrase at the terminal, or an agent. Raises Refusal.

    key: a private key's file, or a public one's whose private key an agent or a security key holds.
    """
    if not key.is_file():
        raise Refusal(f"--key {key}: no such file; make a key with scripts/signature new-key")
    done = _ssh_keygen("sign", "-n", NAMESPACE, "-f", str(key), text=text)
    if done.returncode:
        raise Refusal(f"--key {key}: ssh-keygen does not sign with it: {_said(done)}")
    return done.stdout


def signer_of(text: bytes, signature: bytes, signers: Path) -> str:
    """The name of the trusted signer whose signature of the text this is. Raises Refusal."""
    if not signers.is_file():
        raise Refusal(
            f"{signers}: no such file; it has to hold the signers to trust (scripts/signature new-key prints a line)"
        )
    with tempfile.NamedTemporaryFile() as file:
        file.write(signature)
        file.flush()
        fits = _ssh_keygen("check-novalidate", "-n", NAMESPACE, "-s", file.name, text=text)
        if fits.returncode:
            raise Refusal(
                f"the signature does not fit ({_said(fits)}): it or what it signs was altered, or is of another archive"
            )
        key = fits.stdout.decode().strip().rpartition(" with ")[2]
        found = _ssh_keygen("find-principals", "-s", file.name, "-f", str(signers))
        if found.returncode:
            raise Refusal(
                f"signed by another key, {key} ({_said(found)}): {signers} trusts {', '.join(names(signers)) or 'nobody'}; "
                "do not use it unless you know whose key that is"
            )
        name = found.stdout.decode().splitlines()[0]
        proven = _ssh_keygen("verify", "-n", NAMESPACE, "-s", file.name, "-f", str(signers), "-I", name, text=text)
    if proven.returncode:
        raise Refusal(f"signed by {name} with {key}, which {signers} does not accept for it: {_said(proven)}")
    return name


def names(signers: Path) -> list[str]:
    """The names in a file of signers."""
    lines = signers.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]


def make_key(file: Path, name: str) -> str:
    """Make a key; ssh-keygen asks for its passphrase. Returns the line that makes it a trusted signer. Raises Refusal."""
    if file.exists():
        raise Refusal(f"{file} is there already; give another name, so that no key is lost")
    try:
        done = subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-C", name, "-f", str(file)])
    except FileNotFoundError:
        raise _no_openssh() from None
    if done.returncode or not file.exists():
        raise Refusal(f"no key was made: ssh-keygen ended with status {done.returncode}; see the lines above")
    return signer_line(Path(f"{file}.pub").read_text(encoding="utf-8"), name)


def signer_line(public: str, name: str) -> str:
    """The line of a file of signers for a public key: trusted for lingbi's archives and for git's tags alone."""
    kind, key = public.split()[:2]
    return f'{name} namespaces="{NAMESPACE},{TAGS}" {kind} {key}'


def tag_options(key: Path) -> list[str]:
    """Options of git that have it sign a tag with a key."""
    return ["-c", "gpg.format=ssh", "-c", f"user.signingKey={key.resolve()}"]


def _ssh_keygen(action: str, *arguments: str, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = ["ssh-keygen", "-Y", action, *arguments]
    try:
        return subprocess.run(command, input=text, capture_output=True)
    except FileNotFoundError:
        raise _no_openssh() from None


def _no_openssh() -> Refusal:
    return Refusal("ssh-keygen is not here; install it (Debian, Ubuntu: sudo apt-get install openssh-client)")


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    """The reason among ssh-keygen's lines: the first that says more than that it failed."""
    lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    reasons = [
        line
        for line in lines
        if line.rstrip(".") not in ("Signing data on standard input", "Could not verify signature")
    ]
    return (reasons or lines or [f"exit status {done.returncode}"])[0]
