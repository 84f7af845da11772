"""API keys and other secrets: where the controller keeps them, and how a unit's containers get them."""

import os


def key_place(path, is_check):
    """The file in which the password lookup finds or creates a key; in check mode a new key is not kept."""
    return path if os.path.exists(path) or not is_check else os.devnull


def key_file(name):
    """The file of a client's key, as a secret of Compose."""
    return {"file": f"secrets/key-{name}"}


def key_secret(name):
    """A client's key, as the server's container gets it."""
    return {"source": f"key-{name}", "target": f"/run/lingbi/keys/{name}"}


def secret_files(secrets, owner):
    """Secrets as unit_files takes them: files that only their owner can read."""
    return {
        f"secrets/{name}": {"content": f"{value}\n", "mode": "0400", "owner": int(owner)}
        for name, value in secrets.items()
    }


class FilterModule:
    """Ansible's way to find filters."""

    def filters(self):
        return {
            "lingbi_key_place": key_place,
            "lingbi_key_file": key_file,
            "lingbi_key_secret": key_secret,
            "lingbi_secret_files": secret_files,
        }
