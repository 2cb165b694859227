/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Decides, when a link has returned, whether the standby's image is certain to be an ancestor of the guest.
 * If so, the standby keeps the image, and the primary sends what the image may lack. Otherwise the standby
 * empties the image.
 *
 * An image stems from one full synchronisation. Its origin is the run that made it (a random number of the
 * replicator whose QEMU ran the guest then) and its number among those of that run. The primary keeps an
 * origin once the first epoch of its synchronisation is acked, for as long as it has tracked every change
 * since. It forgets it where tracking ended, and where a term was skipped that it was not granted itself. A
 * run ends with its process, and so does an origin; a standby that promotes is a run of its own. So equal
 * origins say that the same guest went on, in this process, without a gap.
 *
 * Both sides decide by the same rule from the same two HELLOs. A side uses what it said in its own HELLO, not
 * its present state. If the two differ, the link is made again with new HELLOs.
 */
#include "failover/session_step.h"

static bool is_same(const struct session_origin *a, const struct session_origin *b)
{
    return a->run == b->run && a->number == b->number;
}

void session_hello(const struct session *s, struct session_hello *hello)
{
    *hello = (struct session_hello){0};
    if (s->origin_kept)
        hello->origin = s->origin;
    if (s->role == SESSION_PRIMARY)
        hello->next = (struct session_origin){.run = s->config.run, .number = s->syncs + 1};
}

enum image_fate step_image_fate(const struct step *step)
{
    const struct session *s = step->s;
    const struct session_event *event = step->event;
    const struct session_hello *primary = s->role == SESSION_PRIMARY ? &event->said : &event->heard;
    const struct session_hello *secondary = s->role == SESSION_PRIMARY ? &event->heard : &event->said;
    struct session_hello now;
    bool keep = primary->origin.number != 0 && is_same(&primary->origin, &secondary->origin);
    if (s->config.chaos_keep_any_image)
        keep = primary->origin.number != 0;
    session_hello(s, &now);
    if (keep && !s->config.chaos_keep_any_image && !is_same(&now.origin, &event->said.origin))
        return IMAGE_UNSURE;
    if (!keep && s->role == SESSION_PRIMARY && event->said.next.number <= s->syncs && event->said.next.number)
        return IMAGE_UNSURE; /* that number is taken */
    return keep ? IMAGE_KEPT : IMAGE_NEW;
}

void step_new_image(struct step *step)
{
    struct session *s = step->s;
    bool primary = s->role == SESSION_PRIMARY;
    s->origin_kept = false;
    s->origin = primary ? step->event->said.next : step->event->heard.next;
    if (primary)
        s->syncs = s->origin.number;
}

void step_image_is_whole(struct step *step)
{
    step->s->origin_kept = step->s->origin.number != 0;
}

void step_forget_image(struct step *step)
{
    step->s->origin_kept = false;
    step->s->origin = (struct session_origin){0};
}
