"""The page of `depthtokens app`: `page` and `serve` know gradio, the other modules do the work and know nothing of it."""

import os

# Before gradio and huggingface_hub are loaded, which read them once: nobody is told that a page was started.
os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
