"""A style pack: one TOML file that turns "a red apple" into a prompt, a LoRA and parameters."""
