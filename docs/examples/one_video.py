"""What a video shows, from Python: the trace of one video, its moments, its table and its picture.

Run: python docs/examples/one_video.py work/train/default talk.mp4
"""

# %% A model, and a video
import sys

import affect

run, video = sys.argv[1:3]
model = affect.load(run)
trace = model.predict(video)

# %% A number for each frame
seen = trace.face >= 0.5  # face: the probability that there is one
print(f"{len(trace.time)} frames, a face in {seen.mean():.0%} of them")
print(f"valence {trace.valence[seen].mean():+.2f}, arousal {trace.arousal[seen].mean():+.2f} on average")

# %% Its liveliest moment
liveliest = trace.arousal.argmax()
print(f"the liveliest moment: {trace.time[liveliest]:.2f} s")

# %% As a table, for whatever comes next
table = trace.to_dataframe()
print(table.describe())

# %% As a picture
figure = trace.plot()
