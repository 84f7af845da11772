"""API keys and other secrets: where the controller keeps them, and how a unit's containers get them."""

import os


def key_place(path, is_check):
    """Where the password lookup looks for a key; in check mode a new one is kept nowhere."""
    return path if os.path.exists(path) or not is_check else os.devnull


def key_file(name):
    """Where the key of a client lies, as a secret of Compose."""
    return {"file": f"secrets/key-{name}"}


def key_secret(name):
    """The key of a client, as the server's container gets it."""
    return {"source": f"key-{name}", "target": f"/run/lingbi/keys/{name}"}


def secret_files(secrets, owner):
    """Secrets as unit_files takes them: readable for their owner only."""
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
