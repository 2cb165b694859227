/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of requests and roles (roles.h). */
#include "daemon/trust/roles.h"

#include <string.h>

#include "common/refusal.h"

static const struct {
    const char *word;
    unsigned may;
} words[] = {{"standby", MAY_STANDBY}, {"primary", MAY_PRIMARY}, {"witness", MAY_WITNESS}};

unsigned roles_parse(const char *text, GError **error)
{
    g_auto(GStrv) list = g_strsplit(text, ",", -1);
    unsigned may = 0;
    for (char **word = list; *word; word++) {
        size_t i = 0;
        while (i < G_N_ELEMENTS(words) && strcmp(words[i].word, *word) != 0)
            i++;
        if (i == G_N_ELEMENTS(words)) {
            refuse(error, "'%s' is not a role: give standby, primary, witness, or several with commas",
                   *word);
            return 0;
        }
        may |= words[i].may;
    }
    if (!may)
        refuse(error, "no role is named: give standby, primary, witness, or several with commas");
    return may;
}

char *roles_text(unsigned may)
{
    GString *text = g_string_new(NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(words); i++) {
        if (may & words[i].may)
            g_string_append_printf(text, "%s%s", text->len ? "," : "", words[i].word);
    }
    return g_string_free(text, FALSE);
}

#define BODY(x) UNDERSTUDY__ENVELOPE__BODY_##x
#define COMMAND(x)                                                                                           \
    {                                                                                                        \
        .request = BODY(x), .is_command = true                                                               \
    }
#define ANSWER(x)                                                                                            \
    {                                                                                                        \
        .request = BODY(x)                                                                                   \
    } /* not a request */

static const struct request_rule rules[] = {
    COMMAND(RUN_REQUEST),
    COMMAND(STATUS_REQUEST),
    COMMAND(FAILOVER_REQUEST),
    COMMAND(STOP_REQUEST),
    COMMAND(POWER_REQUEST),
    COMMAND(DRAIN_REQUEST),
    COMMAND(EVENTS_REQUEST),
    COMMAND(PAIR_REQUEST),
    COMMAND(KEY_REQUEST),
    COMMAND(TRUST_REQUEST),
    COMMAND(INVITE_REQUEST),
    COMMAND(JOIN_REQUEST),
    /* Between daemons. */
    {.request = BODY(HOST_REQUEST), .is_command = true, .asks = MAY_ALL, .asked = MAY_ALL},
    {.request = BODY(NETWORK_REQUEST), .asks = MAY_PRIMARY, .asked = MAY_STANDBY},
    {.request = BODY(FILES_REQUEST), .asks = MAY_PRIMARY, .asked = MAY_STANDBY},
    {.request = BODY(PREPARE_STANDBY), .asks = MAY_PRIMARY, .asked = MAY_STANDBY},
    {.request = BODY(CANCEL_STANDBY), .asks = MAY_PRIMARY, .asked = MAY_STANDBY},
    {.request = BODY(PAIR_JOIN), .is_pairing = true},
    /* Answers, and what is said between a daemon and its replicators. */
    ANSWER(START),
    ANSWER(PEER_MOVED),
    ANSWER(DROP_PEER),
    ANSWER(FAILOVER),
    ANSWER(STOP),
    ANSWER(POWER),
    ANSWER(RESET_FIGURES),
    ANSWER(LISTENING),
    ANSWER(ADOPTED),
    ANSWER(STATUS),
    ANSWER(ENDED),
    ANSWER(PREPARED),
    ANSWER(ANSWER),
    ANSWER(STATUS_LIST),
    ANSWER(EVENT_LIST),
    ANSWER(HOST),
    ANSWER(FINDINGS),
    ANSWER(NETWORK),
    ANSWER(NETWORK_HEARD),
    ANSWER(PROGRESS),
    ANSWER(TRUST_LIST),
    ANSWER(PAIR_WELCOME),
};

const struct request_rule *request_rule(Understudy__Envelope__BodyCase request)
{
    for (size_t i = 0; i < G_N_ELEMENTS(rules); i++) {
        if (rules[i].request == request)
            return &rules[i];
    }
    return NULL;
}

bool request_is_allowed(Understudy__Envelope__BodyCase request, unsigned may, const char *name,
                        GError **error)
{
    const struct request_rule *rule = request_rule(request);
    if (!rule || !rule->asks)
        return refuse(error, "this request is not for peers");
    if (rule->asks & may)
        return true;
    g_autofree char *needed = roles_text(rule->asks);
    return refuse(error,
                  "this host is not trusted there for that: it needs the role %s; give it there with "
                  "'understudy trust %s KEY --may ...'",
                  needed, name);
}

bool request_may_be_sent(Understudy__Envelope__BodyCase request, unsigned may, const char *name,
                         GError **error)
{
    const struct request_rule *rule = request_rule(request);
    if (rule && rule->asked & may)
        return true;
    g_autofree char *needed = roles_text(rule ? rule->asked : 0);
    return refuse(error,
                  "host %s is not trusted for that: it needs the role %s; see 'understudy trust --list'",
                  name, needed);
}
