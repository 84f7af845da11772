"""What went wrong in a failed task, in words for people."""


def fault(result):
    """A sentence with what a failed task said; of a loop, with what its first failed item said."""
    failed = next((item for item in result.get("results", []) if item.get("failed")), result)
    wrong = [line for line in failed.get("stderr_lines", []) if line.startswith(("FAIL", "error"))]
    return "; ".join(wrong) or failed.get("msg") or "a task failed"


def last_words(result):
    """The last log lines of the containers, or the output of a failed command."""
    failed = next((item for item in result.get("results", []) if item.get("failed")), result)
    return failed.get("log") or failed.get("stdout_lines", []) + failed.get("stderr_lines", [])


def first_line(text):
    """The first line of a text that is not empty."""
    return next((line.strip() for line in str(text).splitlines() if line.strip()), "")


class FilterModule:
    """Ansible's way to find filters."""

    def filters(self):
        return {
            "lingbi_fault": fault,
            "lingbi_last_words": last_words,
            "lingbi_first_line": first_line,
        }
