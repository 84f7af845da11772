"""lmdeploy's engine as lingbi drives it: prompts, sessions, answers."""
