"""lingbi: a serving stack for InternLM-XComposer2 on lmdeploy 0.4.1."""
