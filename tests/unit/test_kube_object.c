/* SPDX-License-Identifier: Apache-2.0 */

/* What is read of Kubernetes' objects, and the pods that are written. */

#include "pods/kube/pool.h"
#include "unit.h"
#include "json/reader.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- pods ---- */

#define META "\"metadata\":{\"name\":\"p\",\"uid\":\"u\",\"resourceVersion\":\"9\"}"

static int read_pod(const char *text, struct kube_pod *p, struct err *e)
{
	json_t *object = json_loads(text, 0, NULL);
	int r;

	assert_non_null(object);
	r = kube_pod_read(object, p, e);
	json_decref(object);
	return r;
}

static void pod_that_runs_is_read(void **state)
{
	struct kube_pod p;

	(void)state;
	assert_int_equal(
		read_pod("{\"metadata\":{\"name\":\"p\",\"uid\":\"u\",\"resourceVersion\":\"9\","
			 "\"labels\":{\"kiln/pool\":\"c\",\"kiln/rev\":\"ab\",\"kiln/state\":"
			 "\"busy\"},\"annotations\":{\"kiln/"
			 "replace\":\"\"}},\"spec\":{\"nodeName\":\"n\"},\"status\":{\"phase\":"
			 "\"Running\",\"podIP\":\"10.0.0.7\",\"conditions\":[{\"type\":\"Ready\","
			 "\"status\":\"True\"}]}}",
			 &p, NULL),
		0);
	assert_string_equal(p.pool, "c");
	assert_string_equal(p.revision, "ab");
	assert_string_equal(p.ip, "10.0.0.7");
	assert_string_equal(p.version, "9");
	assert_int_equal(p.phase, KUBE_RUNNING);
	assert_true(p.ready && p.scheduled && p.labelled_busy && p.unwanted);
	assert_false(p.deleting || p.unschedulable || p.evicted);
}

static void pod_without_a_node_says_why(void **state)
{
	struct kube_pod p;

	(void)state;
	assert_int_equal(read_pod("{" META ",\"status\":{\"phase\":\"Pending\",\"conditions\":"
				  "[{\"type\":\"PodScheduled\",\"status\":\"False\",\"reason\":"
				  "\"Unschedulable\"}]}}",
				  &p, NULL),
			 0);
	assert_true(p.unschedulable);
	/* A gate is not a lack of room. */
	assert_int_equal(read_pod("{" META ",\"status\":{\"phase\":\"Pending\",\"conditions\":"
				  "[{\"type\":\"PodScheduled\",\"status\":\"False\",\"reason\":"
				  "\"SchedulingGated\"}]}}",
				  &p, NULL),
			 0);
	assert_false(p.unschedulable);
}

static void ends_of_pods_are_told_apart(void **state)
{
	static const struct {
		const char *status, *reason;
		bool evicted;
		int code;
	} ends[] = {
		{"\"containerStatuses\":[{\"state\":{\"terminated\":{\"exitCode\":137,\"reason\":"
		 "\"OOMKilled\"}}}]",
		 "OOMKilled", false, 137},
		{"\"reason\":\"Evicted\",\"containerStatuses\":[{\"state\":{\"terminated\":"
		 "{\"exitCode\":137,\"reason\":\"Error\"}}}]",
		 "Evicted", true, 0},
		{"\"conditions\":[{\"type\":\"DisruptionTarget\",\"status\":\"True\"}]", "", true,
		 0},
		{"\"initContainerStatuses\":[{\"state\":{\"terminated\":{\"exitCode\":0,\"reason\":"
		 "\"Completed\"}}}],\"containerStatuses\":[{\"state\":{\"waiting\":{\"reason\":"
		 "\"ImagePullBackOff\"}}}]",
		 "ImagePullBackOff", false, 0},
		{"\"initContainerStatuses\":[{\"state\":{\"terminated\":{\"exitCode\":3,\"reason\":"
		 "\"Error\"}}}],\"containerStatuses\":[{\"state\":{\"waiting\":{\"reason\":"
		 "\"PodInitializing\"}}}]",
		 "Error", false, 3},
	};

	(void)state;
	for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
		struct kube_pod p;
		char text[1024];

		(void)snprintf(text, sizeof text, "{" META ",\"status\":{\"phase\":\"Failed\",%s}}",
			       ends[i].status);
		assert_int_equal(read_pod(text, &p, NULL), 0);
		assert_string_equal(p.reason, ends[i].reason);
		assert_int_equal(p.evicted, ends[i].evicted);
		assert_int_equal(p.exit_code, ends[i].code);
	}
}

static void pod_of_other_types_counts_as_empty(void **state)
{
	struct kube_pod p;

	(void)state;
	assert_int_equal(
		read_pod("{" META ",\"spec\":7,\"status\":{\"phase\":[],\"podIP\":{},"
			 "\"conditions\":\"x\",\"containerStatuses\":[7,null,{\"state\":[]}]}}",
			 &p, NULL),
		0);
	assert_int_equal(p.phase, KUBE_PENDING);
	assert_string_equal(p.ip, "");
	assert_int_equal(read_pod("{" META ",\"status\":{\"phase\":\"Sleeping\"}}", &p, NULL), 0);
	assert_int_equal(p.phase, KUBE_PHASE_UNKNOWN);
}

static void pod_without_a_name_is_refused(void **state)
{
	static const char *const wrong[] = {
		"[]",
		"{}",
		"{\"metadata\":{\"name\":\"p\",\"uid\":\"u\"}}",
		"{\"metadata\":{\"name\":\"\",\"uid\":\"u\",\"resourceVersion\":\"1\"}}",
		"{\"metadata\":{\"name\":\"p\",\"uid\":"
		"\"0123456789012345678901234567890123456789\","
		"\"resourceVersion\":\"1\"}}",
		"{\"metadata\":{\"name\":7,\"uid\":\"u\",\"resourceVersion\":\"1\"}}",
	};

	(void)state;
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		struct kube_pod p;
		struct err e = {""};

		assert_int_equal(read_pod(wrong[i], &p, &e), -EBADMSG);
		assert_true(*e.msg);
	}
}

/* ---- templates ---- */

static int read_pool(const char *notes, const char *template, struct kube_pool *p, struct err *e)
{
	char text[1024];
	json_t *object;
	int r;

	(void)snprintf(text, sizeof text,
		       "{\"metadata\":{\"name\":\"python\",\"uid\":\"u\",\"annotations\":{%s}},"
		       "\"template\":{%s}}",
		       notes, template);
	object = json_loads(text, 0, NULL);
	assert_non_null(object);
	r = kube_pool_read(object, p, e);
	json_decref(object);
	return r;
}

#define SPEC "\"spec\":{\"restartPolicy\":\"Never\",\"containers\":[{\"image\":\"a\"}]}"

static void template_that_is_wrong_is_refused_by_name(void **state)
{
	static const struct {
		const char *notes, *template, *part;
	} wrong[] = {
		{"", SPEC, "kiln/max is missing"},
		{"\"kiln/max\":\"x\"", SPEC, "kiln/max is \"x\""},
		{"\"kiln/max\":\"1\",\"kiln/min\":\"2\"", SPEC, "kiln/min is above"},
		{"\"kiln/max\":\"1\",\"kiln/slot\":\"2\"", SPEC, "\"kiln/slot\" is no annotation"},
		{"\"kiln/max\":\"1\",\"kiln/idle\":\"1ms\"", SPEC, "kiln/idle"},
		{"\"kiln/max\":\"1\",\"kiln/slots\":\"0\"", SPEC, "kiln/slots"},
		{"\"kiln/max\":\"1\"", "\"spec\":{\"restartPolicy\":\"Never\"}", "no containers"},
		{"\"kiln/max\":\"1\"", "\"spec\":{\"containers\":[{}]}", "restartPolicy"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		struct kube_pool p;
		struct err e = {""};

		assert_int_equal(read_pool(wrong[i].notes, wrong[i].template, &p, &e), -22);
		if (!strstr(e.msg, wrong[i].part))
			fail_msg("%s: %s", wrong[i].part, e.msg);
	}
}

static void revision_is_of_the_pods_alone(void **state)
{
	struct kube_pool a, b, c;

	(void)state;
	assert_int_equal(read_pool("\"kiln/max\":\"1\",\"other/x\":\"\"", SPEC, &a, NULL), 0);
	assert_int_equal(read_pool("\"kiln/max\":\"9\"",
				   "\"spec\":{\"containers\":[{\"image\":\"a\"}],"
				   "\"restartPolicy\":\"Never\"}",
				   &b, NULL),
			 0);
	assert_string_equal(a.revision, b.revision);
	assert_int_equal(read_pool("\"kiln/max\":\"1\"",
				   "\"metadata\":{\"labels\":{\"x\":\"y\"}}," SPEC, &c, NULL),
			 0);
	assert_string_not_equal(a.revision, c.revision);
	kube_pool_fini(&a);
	kube_pool_fini(&b);
	kube_pool_fini(&c);
}

static void pod_has_its_pools_labels_and_owner(void **state)
{
	struct kube_pool p;
	struct buf b;
	json_t *pod;

	(void)state;
	assert_int_equal(read_pool("\"kiln/max\":\"1\"",
				   "\"metadata\":{\"labels\":{\"x\":\"y\"}}," SPEC, &p, NULL),
			 0);
	buf_init(&b, 4096);
	assert_int_equal(kube_pool_write_pod(&p, "kiln-python-1", &b, NULL), 0);
	pod = json_loads(b.data, 0, NULL);
	assert_string_equal(kube_text(pod, "kind", NULL), "Pod");
	assert_string_equal(kube_text(pod, "metadata", "name", NULL), "kiln-python-1");
	assert_string_equal(kube_text(pod, "metadata", "labels", "x", NULL), "y");
	assert_string_equal(kube_text(pod, "metadata", "labels", "kiln/pool", NULL), "python");
	assert_string_equal(kube_text(pod, "metadata", "labels", "kiln/rev", NULL), p.revision);
	assert_string_equal(
		kube_text(json_array_get(json_object_get(json_object_get(pod, "metadata"),
							 "ownerReferences"),
					 0),
			  "uid", NULL),
		"u");
	json_decref(pod);
	/* The template is as it was: the next pod has another name. */
	assert_null(json_object_get(json_object_get(p.template, "metadata"), "name"));
	buf_fini(&b);
	kube_pool_fini(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pod_that_runs_is_read),
		cmocka_unit_test(pod_without_a_node_says_why),
		cmocka_unit_test(ends_of_pods_are_told_apart),
		cmocka_unit_test(pod_of_other_types_counts_as_empty),
		cmocka_unit_test(pod_without_a_name_is_refused),
		cmocka_unit_test(template_that_is_wrong_is_refused_by_name),
		cmocka_unit_test(revision_is_of_the_pods_alone),
		cmocka_unit_test(pod_has_its_pools_labels_and_owner),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
