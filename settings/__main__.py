"""scripts/settings: write the schema, the server's excerpt of it, and docs/settings.md, from the classes that declare settings."""

import sys

from settings import schema, tables


def main() -> int:
    """Exit status: 0 written, 1 where a translation is missing or left over."""
    try:
        found = schema.schema()
    except schema.Untranslated as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    schema.FILE.write_text(schema.text(found), encoding="utf-8")
    schema.PARTS.write_text(schema.text(schema.of_other_parts(found)), encoding="utf-8")
    for name, language in tables.PAGES.items():
        page = schema.ROOT / name
        page.write_text(tables.written(page.read_text(encoding="utf-8"), found, language), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
