"""Two engines behind lmdeploy's one interface: TurboMind on CUDA, and plain torch on the CPU."""
