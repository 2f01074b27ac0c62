"""Runs: searched, compared, and shown with their curves and parameters; drawn by two parts that a keyboard can use."""

from __future__ import annotations

import json
import math
import re
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

import pytest

from ml_core.client import MLClient
from ml_core.jobs.processes import ProcessRunner
from support.gated import PEOPLE
from support.job_queue import dispatching, empty_queue
from support.tables import measures

HOSTILE = """<img src=x onerror="window.taken=1">'"><script>window.taken=1</script>${7*7}{{7*7}}"""
POINTS = 10_000
PATH_POINTS = "d => (d.match(/[ML]/g) ?? []).length"


@pytest.fixture
def client(address, shop):
    """An admin's client of the same address."""
    with MLClient(address.split("/api/")[0], api_key=str(shop.key("admin")), tenant_id=shop.tenant) as asks:
        yield asks


def started(client: MLClient, model: str = "m", *, loss: float | None = None, **parameters: object) -> str:
    """The id of a run, which has ended if it has a loss."""
    run_id = client.runs.start(model, parameters=parameters).run_id
    if loss is not None:
        client.runs.log_metrics(run_id, {"loss": loss})
        client.runs.finish(run_id)
    return run_id


def opened(viewer, shop, path: str, **options: object):
    """A reader's page of the tenant."""
    someone = viewer(**options)
    someone.open(f"{shop.path}/{path}")
    someone.sign_in(shop.key("read"))
    return someone


def test_runs_are_searched_sorted_and_paged(viewer, shop, client):
    """By model, state, parameter and metric; the search is in the address."""
    ids = [started(client, loss=index / 100, C=index, solver="lbfgs" if index % 2 else "saga") for index in range(55)]
    other = started(client, "other")
    page = opened(viewer, shop, "runs").page
    rows = page.get_by_role("region", name="Runs").locator("tbody tr")
    page.get_by_text("The first 50 are shown.").wait_for()
    page.get_by_role("button", name="Show more").click()
    page.get_by_role("link", name=ids[0], exact=True).wait_for()
    assert rows.count() == 56
    assert rows.first.get_by_role("link", name=other).count() == 1
    page.get_by_label("Parameters").fill("solver=lbfgs and C=7")
    page.get_by_label("Parameters").press("Enter")
    page.wait_for_url(re.compile("parameter=solver"))
    page.get_by_role("link", name=other).wait_for(state="detached")
    page.get_by_role("link", name=ids[7]).wait_for()
    assert rows.count() == 1
    page.get_by_label("Parameters").fill("")
    page.get_by_label("Metrics").fill("loss>=0.5 and loss<=0.52")
    page.get_by_label("Sort by metric").fill("loss")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name=ids[51]).wait_for()
    page.reload()
    page.get_by_role("link", name=ids[52]).wait_for()
    assert rows.locator("td:nth-child(2)").all_inner_texts() == ids[50:53]  # the best loss is the lowest
    page.get_by_label("Metrics").fill("loss=1")
    page.get_by_role("button", name="Search").click()
    page.get_by_text("a bound has >= (at least) or <= (at most)").wait_for()
    page.get_by_label("Metrics").fill("")
    page.get_by_label("Sort by metric").fill("")
    page.get_by_label("Status").select_option("running")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name=other).wait_for()
    assert rows.count() == 1
    page.get_by_label("Model").fill("nosuch")
    page.get_by_role("button", name="Search").click()
    page.get_by_text("The model nosuch does not exist").wait_for()


def test_chosen_runs_are_compared(viewer, shop, client):
    """Their curves are in one chart; the best and what differs is marked, and what they share is beside it."""
    first, second = (started(client, C=c, solver="lbfgs") for c in (1, 2))
    for factor, run in enumerate((first, second), 1):
        client.runs.log_series(run, "train/loss", range(20), [factor / (1 + step) for step in range(20)])
        client.runs.finish(run)
    anna = opened(viewer, shop, "runs")
    page = anna.page
    for run in (second, first):
        page.get_by_label(f"Compare {run}").focus()
        page.keyboard.press("Space")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Runs side by side").wait_for()
    page.locator("line-chart path.curve").nth(1).wait_for()
    assert page.locator("line-chart").count() == 1
    texts = {row.locator("th").inner_text(): row.locator("td").all_inner_texts() for row in rows_of(page)}
    assert texts["C parameter differs"] == ["2", "1"]
    assert texts["solver parameter"] == ["lbfgs", "lbfgs"]
    assert texts["train/loss metric"] == ["0.1", "0.05 best"]
    third = started(client, C=3, solver="saga")
    page.get_by_label("Another run").fill(third)
    page.get_by_role("button", name="Add").click()
    page.get_by_role("link", name=f"Leave out {third}").wait_for()
    assert re.search(r"runs=[^&]+", unquote(page.url))[0].split("=")[1].split(",") == [second, first, third]
    page.get_by_role("link", name=f"Leave out {first}").click()
    page.get_by_role("link", name=first, exact=True).wait_for(state="detached")
    anna.open(f"{shop.path}/run-comparison?runs={first}")
    page.get_by_text("Name 2 to 100 different runs.").wait_for()
    anna.open(f"{shop.path}/run-comparison?runs={first},run_0123456789abcdef")
    page.get_by_role("heading", name="Not found").wait_for()


def rows_of(page) -> list:
    """The rows of the table of a comparison."""
    return page.get_by_role("region", name="Runs side by side").locator("tbody tr").all()


def test_a_run_far_down_is_chosen(viewer, shop, client):
    """The list stays as long as it was: a box that is ticked is no search."""
    ids = [started(client, "long", loss=1.0) for _ in range(53)]
    page = opened(viewer, shop, "runs?model=long").page
    page.get_by_role("button", name="Show more").click()
    page.get_by_label(f"Compare {ids[0]}").check()
    page.wait_for_timeout(1000)
    assert page.get_by_label(f"Compare {ids[0]}").is_checked()
    assert page.get_by_role("region", name="Runs").locator("tbody tr").count() == 53


def test_one_run_is_not_compared(viewer, shop, client):
    """The page says what to do."""
    run = started(client, loss=1.0)
    page = opened(viewer, shop, "runs").page
    page.get_by_label(f"Compare {run}").check()
    page.get_by_role("button", name="Compare the chosen runs").click()
    page.get_by_text("Choose two runs or more").wait_for()


def test_ten_thousand_points_are_one_line(viewer, shop, client):
    """With its extremes; the values are read by pointer, by keyboard and as a table."""
    run = started(client, rate=0.1)
    values = [math.sin(step / 500) for step in range(POINTS)]
    values[4321] = 7.5
    client.runs.log_series(run, "train/loss", range(POINTS), values)
    client.runs.log_series(run, "validation/loss", range(0, POINTS, 100), values[::100])
    client.runs.log_metrics(run, {"validation/accuracy": 0.5})
    client.runs.finish(run)
    page = opened(viewer, shop, f"runs/{run}").page
    chart = page.locator("line-chart")
    chart.locator("path.curve.color1").wait_for(state="attached")
    assert chart.count() == 1  # one value is no curve, and both of these are losses
    width = chart.evaluate("chart => chart.clientWidth")
    assert (
        100
        < chart.locator("path.curve.color0").evaluate(f"path => ({PATH_POINTS})(path.getAttribute('d'))")
        <= 4 * width
    )
    assert page.get_by_role("row", name=re.compile("^train.loss")).inner_text().split("\t")[4:6] == ["7.5", "10,000"]
    slider = chart.get_by_role("slider")
    slider.focus()
    page.keyboard.press("Home")
    assert slider.get_attribute("aria-valuetext") == "step 0: train/loss 0; validation/loss 0"
    page.keyboard.press("End")
    assert slider.get_attribute("aria-valuetext").startswith("step 9,999: train/loss 0.9")
    page.keyboard.press("ArrowLeft")
    assert int(slider.get_attribute("aria-valuenow")) < POINTS - 1
    page.keyboard.press("Escape")
    assert slider.get_attribute("aria-valuetext").startswith("last: ")
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert abs(int(slider.get_attribute("aria-valuenow")) - POINTS / 2) < POINTS / 20
    assert "step" in chart.locator(".at").inner_text()
    page.get_by_text("loss as a table").click()
    table = chart.get_by_role("table")
    table.locator("tbody tr").last.wait_for()
    assert table.locator("tbody tr").count() == 100
    assert table.locator("tbody tr").first.inner_text().split() == ["0", "0", "0"]


def long_run(client: MLClient) -> str:
    """A run with two metrics of many points, of which the API selects some, and one metric of few."""
    run = started(client, rate=0.1)
    values = [math.sin(step / 500) for step in range(POINTS)]
    values[4321] = 7.5
    client.runs.log_series(run, "loss", range(POINTS), values)
    client.runs.log_series(run, "accuracy", range(POINTS), [step / POINTS for step in range(POINTS)])
    client.runs.log_series(run, "epoch", [0, 6000], [1.0, 2.0])
    client.runs.finish(run)
    return run


def shown_steps(chart) -> list[int]:
    """From which to which step a chart goes."""
    slider = chart.get_by_role("slider")
    return [int(slider.get_attribute(f"aria-value{end}")) for end in ("min", "max")]


def test_a_range_of_steps_is_chosen_by_pointer(viewer, shop, client):
    """All charts show it with as many points as the API selects; it is in the address, and its button takes it away."""
    run = long_run(client)
    anna = opened(viewer, shop, f"runs/{run}")
    page = anna.page
    loss, accuracy, epoch = (page.locator(f"line-chart[label={label}]") for label in ("loss", "accuracy", "epoch"))
    path = loss.locator("path.curve.color0")
    path.wait_for(state="attached")
    loss.scroll_into_view_if_needed()
    box = loss.get_by_role("slider").bounding_box()
    middle = box["y"] + box["height"] / 2
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "until_step" in request.url else None)
    page.mouse.move(box["x"] + 0.4 * box["width"], middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], middle, steps=5)
    assert re.match("from step 3,[0-9]+ to step 4,[0-9]+$", loss.locator(".at").inner_text())
    assert loss.locator("rect.range").get_attribute("visibility") == "visible"
    page.mouse.up()
    page.wait_for_url(re.compile("steps="))
    chosen = [int(step) for step in unquote(page.url).split("steps=")[1].split(",")]
    assert 3000 < chosen[0] < 4321 < chosen[1] < 5500
    anna.wait_until(lambda: len(asked) == 2)
    anna.wait_for_rest()
    assert [shown_steps(loss), shown_steps(accuracy)] == [chosen, chosen]
    assert all(f"after_step={chosen[0] - 1}&until_step={chosen[1]}" in url for url in asked)
    assert path.evaluate(f"path => ({PATH_POINTS})(path.getAttribute('d'))") > (chosen[1] - chosen[0]) / 2
    epoch.get_by_text(f"There is no point from step {chosen[0]:,} to step {chosen[1]:,}.").wait_for()
    loss.locator("summary").click()
    loss.locator("tbody th").first.get_by_text(f"{chosen[0]:,}", exact=True).wait_for()
    ben = opened(viewer, shop, f"runs/{run}?steps={chosen[0]},{chosen[1]}")  # a colleague, who got the address
    ben.page.locator("line-chart[label=loss] path.curve").first.wait_for(state="attached")
    assert shown_steps(ben.page.locator("line-chart[label=loss]")) == chosen
    accuracy.get_by_role("button", name="All steps").click()
    page.wait_for_url(re.compile(f"{run}$"))
    anna.wait_for_rest()
    assert [shown_steps(loss), shown_steps(accuracy)] == [[0, POINTS - 1]] * 2
    assert accuracy.get_by_role("slider").evaluate("slider => slider === document.activeElement")
    page.go_back()
    page.wait_for_url(re.compile("steps="))
    loss.get_by_role("button", name="All steps").wait_for()
    assert shown_steps(loss) == chosen


def test_a_range_of_steps_is_chosen_by_keyboard(viewer, shop, client):
    """Shift marks it and Enter shows it; Escape lets go; of runs side by side, too."""
    ids = [long_run(client), long_run(client)]
    anna = opened(viewer, shop, f"run-comparison?runs={','.join(ids)}")
    page = anna.page
    chart = page.locator("line-chart[label=accuracy]")
    chart.locator("path.curve.color1").wait_for(state="attached")
    slider = chart.get_by_role("slider")
    slider.focus()
    page.keyboard.press("Home")
    page.keyboard.press("Shift+PageUp")
    assert slider.get_attribute("aria-valuetext").startswith("from step 0 to step 1,000: ")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    assert "steps=" not in page.url
    page.keyboard.press("Home")
    page.keyboard.press("PageUp")
    for key in ("Shift+PageUp", "Shift+PageUp", "Enter"):
        page.keyboard.press(key)
    page.wait_for_url(re.compile("steps="))
    anna.wait_for_rest()
    first, last = shown_steps(chart)
    assert [round(first, -2), round(last, -2)] == [1000, 3000]
    assert slider.evaluate("slider => slider === document.activeElement")
    page.keyboard.press("Home")
    assert slider.get_attribute("aria-valuetext").startswith(f"step {first:,}: ")
    assert chart.locator("path.curve.color1").evaluate(f"path => ({PATH_POINTS})(path.getAttribute('d'))") > 100
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")  # the button
    page.wait_for_url(re.compile("runs=[^&]*$"))
    assert slider.evaluate("slider => slider === document.activeElement")
    anna.open(f"{shop.path}/runs/{ids[0]}?steps=nonsense")
    chart.locator("path.curve.color1").wait_for(state="detached")
    chart.locator("path.curve").wait_for(state="attached")
    assert shown_steps(chart) == [0, POINTS - 1]


def test_a_chart_keeps_every_extreme(viewer, shop):
    """Of 100,000 points in 3 lines, or a range, four a pixel column are drawn, whichever has the highest."""
    page = opened(viewer, shop, "runs").page
    found = page.evaluate(
        """async () => {
          await import("./parts/line_chart.js");
          const chart = document.createElement("line-chart");
          chart.label = "many";
          document.getElementById("main").append(chart);
          const answers = [];
          for (const spike of [0, 1, 33333, 50000, 99998, 99999]) {
            const points = Array.from({ length: 100000 }, (_, step) => [step, step === spike ? 1000 : Math.random()]);
            const plain = points.map(([step]) => [step, 1]);
            chart.range = spike === 33333 ? [30000, 60000] : null;
            chart.series = [{ name: "a", points }, { name: "b", points: plain }, { name: "none", points: [] }];
            const paths = [...chart.querySelectorAll("path.curve")].map((path) => path.getAttribute("d"));
            const tops = paths[0].match(/ [\\d.]+/g).map(Number);
            answers.push([Math.min(...tops), tops.length, paths[1].match(/[ML]/g).length, chart.clientWidth]);
          }
          return answers;
        }"""
    )
    for top, drawn, plain, width in found:
        assert top == 10, "the highest is at the top of the picture"
        assert drawn <= 4 * width
        assert plain <= 4 * width


def test_values_that_are_not_finite_are_gaps(viewer, shop, client):
    """A diverged loss is seen in the curve, in the table of metrics and in what is read."""
    run = started(client)
    client.runs.log_series(run, "loss", [0, 1, 2, 3], [1.0, math.nan, math.inf, 4.0])
    client.runs.log_series(run, "never", [0, 1], [math.nan, math.nan])
    page = opened(viewer, shop, f"runs/{run}").page
    chart = page.locator("line-chart[label=loss]")
    path = chart.locator("path.curve.color0").last.get_attribute("d")
    assert path.count("v-6") == 2
    assert path.count("m-2 0a2") == 2  # a dot at each side
    slider = chart.get_by_role("slider")
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert slider.get_attribute("aria-valuetext") == "step 2: loss \N{EN DASH}"
    assert page.get_by_role("row", name=re.compile("^loss")).inner_text().split("\t")[-2:] == ["4", "2"]
    page.locator("line-chart[label=never] svg").first.wait_for()


def test_a_run_that_goes_on_is_followed(viewer, shop, client):
    """New points appear, and are all that is asked for; the end is seen without a reload."""
    run = started(client)
    client.runs.log_series(run, "loss", range(100), [1.0] * 100)
    anna = opened(viewer, shop, f"runs/{run}")
    page = anna.page
    row = page.get_by_role("row", name=re.compile("^loss"))
    row.get_by_text("100", exact=True).wait_for()
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "/series?" in request.url else None)
    client.runs.log_series(run, "loss", range(100, 103), [0.5] * 3)
    row.get_by_text("103", exact=True).wait_for()
    slider = page.get_by_role("slider")
    slider.focus()
    page.keyboard.press("End")
    assert slider.get_attribute("aria-valuetext") == "step 102: loss 0.5"
    assert [re.search("after_step=([0-9]+)", url)[1] for url in asked] == ["99"]
    client.runs.log_series(run, "loss", [-1], [9.0])  # an earlier step, so that all is read again
    anna.wait_until(lambda: len(asked) == 3)

    def first() -> str | None:
        page.keyboard.press("Home")
        return slider.get_attribute("aria-valuetext")

    anna.wait_until(lambda: first() == "step -1: loss 9")  # once it is answered
    client.runs.fail(run, "out of memory")
    page.get_by_text("failed", exact=True).wait_for()
    page.get_by_text("out of memory").wait_for()
    page.wait_for_timeout(2500)
    asked_later = []
    page.on("request", lambda request: asked_later.append(request.url))
    page.wait_for_timeout(3000)
    assert asked_later == [], "it has ended"


def test_metrics_of_a_run_are_searched(viewer, shop, client):
    """With their curves; at most twelve charts are drawn."""
    run = started(client)
    for step in range(2):
        client.runs.log_metrics(run, {f"part{index}": float(step) for index in range(15)}, step)
    page = opened(viewer, shop, f"runs/{run}").page
    page.get_by_text("12 of 15 charts.").wait_for()
    assert page.locator("line-chart").count() == 12
    page.get_by_label("Search metrics").fill("PART14")
    page.locator("line-chart[label=part14]").wait_for()
    page.locator("line-chart[label=part1]").wait_for(state="detached")
    page.wait_for_url(re.compile("q=PART14"))


def test_files_of_a_run_are_downloaded(viewer, shop, client, tmp_path):
    """Also from a folder, and with a name that an address has to escape."""
    run = started(client)
    (tmp_path / "file").write_bytes(b"content")
    client.runs.log_file(run, "plots/50 %? #1.txt", tmp_path / "file")
    page = opened(viewer, shop, f"runs/{run}").page
    with page.expect_download() as download:
        page.get_by_role("link", name="plots/50 %? #1.txt").click()
    assert Path(download.value.path()).read_bytes() == b"content"


def test_parameters_beside_a_metric(viewer, shop, client):
    """Runs are chosen by ranges of axes, by pointer and by keyboard; the ranges are in the address."""
    ids = [
        started(client, loss=1 / (1 + index), rate=10.0**-index, depth=index, kind=f"k{index % 3}", same="x")
        for index in range(6)
    ]
    anna = opened(viewer, shop, "runs")
    page = anna.page
    page.get_by_role("link", name="Parameters and a metric").click()
    page.get_by_text("6 of 6 runs within the chosen ranges.").wait_for()
    chart = page.locator("parallel-coordinates")
    sliders = chart.get_by_role("slider")
    assert sliders.evaluate_all("all => all.map(each => each.getAttribute('aria-label'))")[::2] == [
        f"{name}: at least" for name in ("depth", "kind", "rate", "loss")
    ]
    slider = chart.get_by_role("slider", name="depth: at most")
    slider.focus()
    page.keyboard.press("ArrowDown")
    assert slider.get_attribute("aria-valuetext") == "4"
    page.get_by_text("5 of 6 runs within the chosen ranges.").wait_for()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "depth: at most"
    kind = chart.get_by_role("slider", name="kind: at least")
    kind.focus()
    page.keyboard.press("ArrowUp")
    page.get_by_text("3 of 6 runs within the chosen ranges.").wait_for()
    page.get_by_role("link", name=ids[0]).wait_for(state="detached")
    shown = page.get_by_role("region", name="Runs").locator("tbody td:nth-child(2)")
    assert shown.all_inner_texts() == [ids[4], ids[2], ids[1]]
    page.reload()
    page.get_by_text("3 of 6 runs within the chosen ranges.").wait_for()
    kind.focus()
    page.keyboard.press("Escape")
    page.get_by_text("5 of 6 runs within the chosen ranges.").wait_for()
    box = chart.locator("rect.touch").nth(2).bounding_box()  # rate, from 1 at the top to 1e-5
    page.mouse.move(box["x"] + 16, box["y"] + 0.15 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 16, box["y"] + 0.5 * box["height"], steps=4)
    page.mouse.up()
    page.get_by_text("2 of 6 runs within the chosen ranges.").wait_for()
    ranges = json.loads(re.search(r"ranges=([^&]*)", unquote(page.url).replace("+", " "))[1])
    assert ranges.keys() == {"depth", "rate"}
    page.mouse.click(box["x"] + 16, box["y"] + 0.3 * box["height"])  # a click between the ends takes it away
    page.get_by_text("5 of 6 runs within the chosen ranges.").wait_for()
    page.get_by_role("button", name="All ranges").click()
    page.get_by_text("6 of 6 runs within the chosen ranges.").wait_for()
    anna.open(f"{shop.path}/runs?view=parameters&ranges=nonsense&by=none")
    page.get_by_text("6 of 6 runs within the chosen ranges.").wait_for()


def test_jobs_and_versions_lead_to_their_runs(viewer, shop, client, db):
    """A job to the run of its attempt, that to its job and to the version that it made, and this to the run again."""
    client.datasets.create("m", measures(100))
    empty_queue(db)
    training = {"target": "outcome", "hyperparameters": {"algorithm": "ridge"}}
    job = client.jobs.train("m", "m", training=training).job_id
    page = opened(viewer, shop, f"jobs/{job}").page
    with closing(ProcessRunner(db)) as runner, dispatching(db, runner):
        page.get_by_role("heading", name="succeeded").wait_for(timeout=60_000)
    run = client.jobs.get(job).run_id
    page.get_by_role("link", name=run).click()
    page.get_by_role("link", name="diagnostics.json").wait_for()
    page.get_by_role("link", name=job).wait_for()
    page.get_by_role("link", name="m 1").click()
    page.get_by_role("heading", name="m 1").wait_for()
    page.get_by_role("link", name=run).wait_for()
    page.get_by_role("link", name="m", exact=True).click()
    page.get_by_role("main").get_by_role("link", name="Runs").click()
    page.get_by_role("link", name=run).wait_for()
    assert page.get_by_label("Model").input_value() == "m"


def test_injected_html_is_text(viewer, shop, client, tmp_path):
    """In names and values of parameters, metrics and tags, in errors and in names of files."""
    (tmp_path / "file").write_bytes(b"x")
    metric = HOSTILE.replace("/", "|")
    ids = [client.runs.start("m", parameters={HOSTILE: f"{HOSTILE}{c}", "b": {HOSTILE: c}}).run_id for c in range(2)]
    for number, run in enumerate(ids):
        client.runs.tag(run, {HOSTILE[:80]: f"{HOSTILE}{number}"})
        client.runs.log_series(run, metric, range(3), [1.0, 2.0, float(number)])
        client.runs.log_file(run, metric.replace('"', ""), tmp_path / "file")
        client.runs.fail(run, HOSTILE)
    anna = opened(viewer, shop, f"runs/{ids[0]}")
    page = anna.page
    page.locator("line-chart").wait_for()
    page.get_by_text("as a table").click()
    assert page.get_by_text(HOSTILE).count() >= 3
    assert page.get_by_text(metric).count() >= 4
    anna.open(f"{shop.path}/run-comparison?runs={','.join(ids)}")
    page.get_by_text(f"{HOSTILE}1").first.wait_for()
    anna.open(f"{shop.path}/runs?view=parameters")
    chart = page.locator("parallel-coordinates")
    chart.get_by_role("slider", name=HOSTILE).first.wait_for()
    chart.get_by_role("slider", name=HOSTILE).first.focus()
    page.keyboard.press("ArrowUp")
    page.get_by_text("1 of 2 runs within").wait_for()
    anna.open(f"{shop.path}/runs?sort=%3Cimg%20src%3Dx%20onerror%3D%22window.taken%3D1%22%3E")
    page.get_by_text("No run has the metric").wait_for()
    assert page.evaluate("window.taken") is None
    assert page.locator("img[src=x], main script").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_runs_are_accessible(viewer, shop, client, scheme, width):
    """Axe finds nothing; no page scrolls sideways."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    ids = [client.runs.start(PEOPLE, parameters={"rate": 10.0**-c, "depth": c, "long": "x" * 200}) for c in range(9)]
    for number, run in enumerate(ids):
        for part in ("train", "validation"):
            client.runs.log_series(run.run_id, f"{part}/loss", range(50), [number / (1 + step) for step in range(50)])
        client.runs.log_metrics(run.run_id, {"validation/" + "y" * 60: 1.0, "validation/nan": math.nan})
    names = [run.run_id for run in ids]
    someone = opened(viewer, shop, "runs", color_scheme=scheme, viewport={"width": width, "height": 900})
    page = someone.page
    found = {}
    ranges = json.dumps({"depth": [2, 6]})
    pages = {
        "runs": "tbody tr",
        f"runs?view=parameters&by=train/loss&ranges={ranges}": "parallel-coordinates .range",
        f"runs/{names[0]}": "line-chart path.curve",
        f"run-comparison?runs={','.join(names)}": "line-chart path.curve",
        "run-comparison": ".problem",
    }
    for path, content in pages.items():
        someone.open(f"{shop.path}/{path}")
        page.locator(content).first.wait_for(state="attached")
        for table in page.locator("line-chart summary").all():
            table.click()
            page.locator("line-chart details[open] tbody tr").last.wait_for()
        found[path] = [
            (each["id"], [node["html"][:200] for node in each["nodes"]])
            for each in axe.run(page).response["violations"]
        ]
        found[path] += ["too wide"] * (page.evaluate("document.documentElement.scrollWidth") > width)
    assert {path: faults for path, faults in found.items() if faults} == {}
