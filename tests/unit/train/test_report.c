/* The report: one page, nothing fetched, nothing from outside unescaped; the smoothed curve; the
 * chart's edge cases. */
#include "tests/support/support.h"

#include "formats/svg.h"
#include "train/report.h"

#include <math.h>
#include <string.h>

static void smoothing_as_in_llama_factory(void **state) {
    (void)state;
    const double values[] = {4, 2, (double)NAN, 3};
    double smoothed[4];
    smooth_curve(smoothed, values, 4);
    double weight = 1.8 * (1 / (1 + exp(-0.2)) - 0.5);
    test_assert_near(smoothed[0], 4, 0, 0, "first");
    test_assert_near(smoothed[1], 4 * weight + 2 * (1 - weight), 0, 1e-15, "second");
    test_assert_near(smoothed[2], smoothed[1], 0, 0, "not finite");
    test_assert_near(smoothed[3], smoothed[2] * weight + 3 * (1 - weight), 0, 1e-15, "last");
}

static void page_is_self_contained_and_escaped(void **state) {
    (void)state;
    metrics_point points[] = {{1, 2, 1, 1e-4f}, {2, NAN, NAN, 1e-4f}, {3, 1.5f, 0.5f, 5e-5f}};
    evaluation_point evaluations[] = {{3, 1.75}};
    const metrics_history history = {
        .steps = points, .n_steps = 3, .evaluations = evaluations, .n_evaluations = 1};
    const train_result result = {.first_loss = 2,
                                 .last_loss = 1.5,
                                 .eval_loss = 1.75,
                                 .plan = {.total = 1 << 20, .trained = 10, .parameters = 1000}};
    const train_config config = {.base_name = "org/<script>alert(1)</script>",
                                 .recipe = "output_dir: \"a&b\"\n"};
    const report_source source = {&result, &config, &history, "lora", 3};
    strbuf html = {0};
    assert_ok(report_write(&html, &source, &test_error));
    assert_null(strstr(html.data, "<script"));
    assert_null(strstr(html.data, "src="));
    assert_null(strstr(html.data, "href="));
    assert_non_null(strstr(html.data, "&lt;script&gt;"));
    assert_non_null(strstr(html.data, "a&amp;b"));
    assert_non_null(strstr(html.data, "evaluation perplexity"));
    assert_null(strstr(html.data, "nan"));
    strbuf_free(&html);
}

static void report_of_no_steps(void **state) {
    (void)state;
    const metrics_history history = {0};
    const train_result result = {.eval_loss = (double)NAN, .plan = {.parameters = 1}};
    const train_config config = {0};
    const report_source source = {&result, &config, &history, "lora", 0};
    strbuf html = {0};
    assert_ok(report_write(&html, &source, &test_error));
    assert_null(strstr(html.data, "nan"));
    assert_null(strstr(html.data, "inf"));
    strbuf_free(&html);
}

static void long_series_is_drawn_by_pixel_columns(void **state) {
    (void)state;
    enum { N = 20000 };
    static double x[N], y[N];
    for (int i = 0; i < N; i++) {
        x[i] = i;
        y[i] = i == 777 ? 100 : i % 7;
    }
    const svg_series series = {"y", "red", x, y, N, 1, 1};
    const svg_chart chart = {"T", "x", 400, 200, &series, 1};
    strbuf out = {0};
    svg_line_chart(&out, &chart);
    assert_true(out.length < 20000); /* and the single peak is still there, at the top */
    assert_non_null(strstr(out.data, " 34.0"));
    strbuf_free(&out);
}

static void constant_series_has_an_axis(void **state) {
    (void)state;
    const double x[] = {5}, y[] = {0};
    const svg_series series = {"y", "red", x, y, 1, 1, 1};
    const svg_chart chart = {"T", "x", 400, 200, &series, 1};
    strbuf out = {0};
    svg_line_chart(&out, &chart);
    assert_null(strstr(out.data, "nan"));
    assert_null(strstr(out.data, "inf"));
    strbuf_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(smoothing_as_in_llama_factory),
        cmocka_unit_test(page_is_self_contained_and_escaped),
        cmocka_unit_test(report_of_no_steps),
        cmocka_unit_test(long_series_is_drawn_by_pixel_columns),
        cmocka_unit_test(constant_series_has_an_axis),
    };
    return cmocka_run_group_tests_name("report", tests, NULL, NULL);
}
