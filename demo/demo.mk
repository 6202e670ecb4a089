# make demo: the main job on an embedded broker; see demo/demo.sh.

demo:
	@MAKE='$(MAKE)' PG_CONFIG='$(PG_CONFIG)' bash demo/demo.sh

.PHONY: demo
