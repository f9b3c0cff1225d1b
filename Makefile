# make demo    data from scikit-image's photographs, foregrounds, training, test, heat maps, report (no download beyond
#              packages). Called again, it goes on where it was stopped, or scores again; nothing is deleted.
#              DEMO_EPOCHS=4: a shorter one, in a run folder of its own
# make picture docs/demo.png anew, from the demo's heat maps (runs the demo first)
# make docs    docs/commands.md anew, from the programs' flags
# make test    the whole test suite, a process for each core (JOBS=1: one after the other)
# make lint    ruff
# make fuzz    ten times as many damaged inputs as the tests have, other ones every time (some minutes)
# make peers  a short trial of benchmarks/peers.py beside anomalib, which it installs, and the tests that need it
# make chaos   kill 50 training runs at random moments and compare what they end with (a quarter of an hour)
# make bench   speed, memory, what each part is worth, how it scales (about half an hour on two cores)
# Each makes .venv on first use (Python >= 3.10).

PYTHON ?= python3
DEMO_EPOCHS ?= 20
JOBS ?= auto
DEMO_RUN = demo/run-$(DEMO_EPOCHS)-epochs
VENV ?= .venv
VENV_PYTHON := $(VENV)/bin/python

.PHONY: demo picture docs test lint fuzz peers chaos bench clean

demo: $(VENV)/installed
	$(VENV_PYTHON) scripts/make_demo_data.py --output demo/data
	$(VENV_PYTHON) scripts/fore_extractor.py --data_path demo/data --output demo/fg_mask
	$(VENV_PYTHON) train.py --data_root demo/data --aux_path builtin --backbone efficientnet_lite0 --weights bundled --batch_size 8 \
		--epochs_stage1 $(DEMO_EPOCHS) --epochs_stage2 $(DEMO_EPOCHS) --fg_root demo/fg_mask --output $(DEMO_RUN)
	$(VENV_PYTHON) test.py --data_root demo/data --run $(DEMO_RUN) --save_maps
	$(VENV_PYTHON) scripts/report.py $(DEMO_RUN)
	@echo "heat maps: $(DEMO_RUN)/maps; everything at a glance: $(DEMO_RUN)/report.html"

picture: demo
	$(VENV_PYTHON) docs/make_picture.py $(DEMO_RUN) --output docs/demo.png

docs: $(VENV)/installed
	$(VENV_PYTHON) docs/make_commands.py

test: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest -n $(JOBS) --dist loadfile

lint: $(VENV)/installed-dev
	$(VENV_PYTHON) -m ruff check .

fuzz: $(VENV)/installed-dev
	FUZZ_FACTOR=10 $(VENV_PYTHON) -m pytest tests/programs/test_fuzzing.py

peers: $(VENV)/installed-peers
	$(VENV_PYTHON) benchmarks/peers.py --smoke
	$(VENV_PYTHON) -m pytest tests/repository/test_peers_anomalib.py

chaos: $(VENV)/installed-dev
	$(VENV_PYTHON) tests/chaos/kill.py --trials 50

bench: $(VENV)/installed-dev
	$(VENV_PYTHON) benchmarks/speed.py --memory
	$(VENV_PYTHON) benchmarks/ablation.py
	$(VENV_PYTHON) benchmarks/scaling.py --plot docs/scaling.svg
	$(VENV_PYTHON) benchmarks/roofline.py

clean:
	rm -rf demo $(VENV)

$(VENV)/installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt
	$(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

$(VENV)/installed-peers: $(VENV)/installed-dev requirements-peers.txt
	$(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check -r requirements-peers.txt
	touch $@
