"""Triggers that time starts: schedules, dates of objects, and states that last for so long.

`checks`: what may be wrong with them; `watch`: what they mean for one object; `following`: what events do with timers;
`scanning`: timers of objects that there are already. What is due is `firing`'s, outside of this package.
"""
