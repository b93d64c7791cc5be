"""A configuration for runs of a second, and the small manifest that they make."""

FAST = {"provider.time_scale": 1000, "limits.requests_per_minute": 60_000, "media.verify": "container"}
"""A sandbox that takes a third of a second for a generation."""

MANIFEST = "id,prompt,duration,mood\none,a lamp,5,cozy\ntwo,a mug,10,bold\n"
